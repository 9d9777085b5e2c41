// The members of a measurement that are ranks of this process.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "engine/engine_state.h"
#include "engine/rank_orders.h"
#include "kv/kv_cache.h"
#include "worker/short_run.h"

namespace runahead {

/// Some ranks here, each with a cache for a prompt of `longest` tokens. Whoever uses it holds the engine.
class ProbeRanks {
 public:
  /// Takes those of `members` that are here.
  ProbeRanks(HeldEngine& held, const std::vector<int>& members, int64_t longest);

  [[nodiscard]] const std::vector<int>& members() const { return members_; }
  [[nodiscard]] int64_t longest() const { return longest_; }

  /// Lets all begin the run at the same time, make it `times` times, and go on until `stop`, so that the fast ones
  /// work beside the others. Tells `on_made` what the first `times` of each took, by the thread of the last rank to
  /// make them. Returns once all have stopped.
  using OnMade = std::function<void(const std::vector<Stretches>& seen)>;
  void Run(HeldEngine& held, const ShortRun& run, int times, const std::atomic<bool>& stop, const OnMade& on_made);

  /// Makes the rounds of HopsOrder whose ranks are here, over `links`, which are numbered as all ranks are. Throws
  /// LinkError where rows do not arrive.
  std::vector<HopTimes> Hop(HeldEngine& held, const HopsOrder& order, Fabric& links);

 private:
  int64_t longest_;
  std::vector<int> members_;                   // ranks
  std::vector<const PositionTables*> tables_;  // [members]
  std::vector<KvCache> caches_;                // [members]
};

}  // namespace runahead
