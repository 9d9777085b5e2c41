// Short runs of a model's first layers on some ranks at once, here and in other processes.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "engine/engine_state.h"
#include "engine/probe_ranks.h"
#include "worker/short_run.h"

namespace runahead {

class GroupLinks;

/// Some ranks at work at once, each with a cache for a prompt of `longest` tokens. Must not outlive the engine.
class Probe {
 public:
  Probe(HeldEngine& held, std::vector<int> members, int64_t longest);
  /// Tells the other processes.
  ~Probe();
  Probe(Probe&& other) noexcept;
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;
  Probe& operator=(Probe&&) = delete;

  /// Lets every member make the run at the same time, again and again until all have made it `times` times, so that
  /// the fast ones go on working beside the others. Adds the first `times` to `seen`, [members]; null: adds nothing.
  /// Throws LinkError for a member in another process that fails.
  void Run(HeldEngine& held, const ShortRun& run, int times, std::vector<Stretches>* seen);

  /// Seconds of rounds of `rows` rows from the first of each pair to the second and one row back. No member is in two
  /// of the pairs. Throws LinkError.
  std::vector<HopTimes> Hop(HeldEngine& held, const std::vector<std::pair<int, int>>& pairs, int64_t rows,
                            int rounds);

 private:
  /// Places of the members that a process has.
  [[nodiscard]] std::vector<size_t> PlacesIn(int process) const;

  EngineState* engine_;  // null: moved from
  uint64_t number_;      // number of the probe for other processes
  std::vector<int> members_;
  int64_t longest_;
  std::unique_ptr<ProbeRanks> here_;
  std::unique_ptr<GroupLinks> links_;  // null: there is one process
};

}  // namespace runahead
