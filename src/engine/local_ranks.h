// The ranks of this process, as requests use them: their caches, and what runs their steps.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/engine_state.h"
#include "engine/metered_fabric.h"
#include "kv/kv_cache.h"
#include "worker/rank_worker.h"

namespace runahead {

inline constexpr int64_t kMostRows = 8192;  // rows of prompts in a step of one rank

/// Borrows the engine. Ranks are numbered as in the whole group.
class LocalRanks {
 public:
  /// Makes the caches, of `kv_memory` bytes each, or of what is free when that is 0. Throws ConfigError when they do
  /// not fit in memory.
  LocalRanks(const HeldEngine& held, size_t kv_memory);
  ~LocalRanks();
  LocalRanks(const LocalRanks&) = delete;
  LocalRanks& operator=(const LocalRanks&) = delete;

  [[nodiscard]] std::span<const KvCache> caches() const { return caches_; }
  /// Pages of a rank's cache.
  [[nodiscard]] int32_t Pages(int rank) const;
  /// Runs `plan` behind what the rank was told before. `fabric` joins the members of its gang, by their places in it;
  /// null without one. `answer` is called on the rank's thread.
  void Post(int rank, StepPlan plan, std::shared_ptr<MeteredFabric> fabric, std::function<void(StepResult)> answer);

 private:
  [[nodiscard]] size_t IndexOf(int rank) const { return static_cast<size_t>(rank - engine_.first_rank()); }

  EngineState& engine_;
  std::vector<KvCache> caches_;      // [ranks of this process]
  std::vector<RankWorker> workers_;  // [ranks of this process]
};

}  // namespace runahead
