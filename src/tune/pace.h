// The pace of the machine: how much slower its ranks are at this moment than their costs say.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "engine/engine_state.h"
#include "plan/cluster_costs.h"
#include "tune/probe.h"

namespace runahead {

/// Machines change their clocks and work for others too, for seconds on end. A prediction and a measurement of
/// different moments are compared fairly only at one pace.
class PaceMeter {
 public:
  /// Runs the middle half of prompts of `tokens` tokens, whose rows see as much as the average row of a prompt.
  /// That matters because what slows a machine down slows matmuls and attention differently.
  PaceMeter(std::shared_ptr<EngineState> engine, int64_t tokens);

  /// Makes room for the first `count` ranks and warms them up.
  void Prepare(int count);
  /// Seconds of some layers over those of `costs`, for each of the first `count` ranks while they work at once. Takes
  /// the engine for itself for some milliseconds.
  std::vector<double> Slowdowns(int count, const ClusterCosts& costs);

 private:
  /// Some ranks, and what they run: enough for caches and clocks to settle.
  struct Gauge {
    Probe probe;
    ShortRun run;
    int runs = 1;
  };

  std::shared_ptr<EngineState> engine_;
  int64_t tokens_;
  std::map<int, Gauge> gauges_;  // key: number of ranks
};

}  // namespace runahead
