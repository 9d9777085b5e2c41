// Measures the cost profile of an engine: few short runs of parts of its model.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/engine_state.h"
#include "plan/cost_profile.h"
#include "tune/probe.h"
#include "tune/profile_samples.h"

namespace runahead {

/// Measures the costs of 1, 2, 4, ... and all ranks at work at once, `repeats` times: the links, what precedes and
/// follows the layers, and a layer of chunks of 1 to `longest` rows (or as many as the model takes). Chunks stand at
/// the start and at the end of a prompt of `longest` tokens. Only the first layers run, except for single rows.
/// `on_repeat` is told the share of the work done. Takes the engine for itself meanwhile. Throws what Session throws.
CostProfile MeasureProfile(const std::shared_ptr<EngineState>& engine, int64_t longest, int repeats,
                           const std::function<void(double)>& on_repeat);

/// Measures the links alone, `repeats` times. Throws ConfigError where all ranks are in one process, and LinkError.
LinkTable MeasureHops(const std::shared_ptr<EngineState>& engine, int64_t longest, int repeats,
                      const std::function<void(double)>& on_repeat);

/// Copies between `members` while all of them copy at once, each to the next, with caches of their own.
class LinkProbe {
 public:
  LinkProbe(HeldEngine& held, std::vector<int> members, int64_t longest);
  LinkSamples Measure(HeldEngine& held);

 private:
  std::vector<int> members_;
  int64_t many_;
  std::vector<KvCache> caches_;  // [members]
};

using HopsSeen = std::map<std::pair<int, int>, HopSamples>;  // by (from, to)

/// Links between all ranks of a group of processes, over the transports that prompts will take.
class HopProbe {
 public:
  HopProbe(HeldEngine& held, int64_t longest);
  /// Every direction between two ranks, no rank in two of them at once.
  HopsSeen Measure(HeldEngine& held);

 private:
  int ranks_;
  int64_t many_;  // rows of a large hand-over
  size_t row_bytes_;
  Probe probe_;
};

/// The links of the ranks, by all that was seen of them: those of one process are moved by their threads on CPUs,
/// others beside them. Ranks of different hosts share their hosts' cards.
LinkTable FitHops(EngineState& engine, const std::vector<HopsSeen>& seen);

}  // namespace runahead
