// Measures the cost profile of an engine: few short runs of parts of its model.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/engine_state.h"
#include "plan/cost_profile.h"

namespace runahead {

struct ProfileOptions {
  int64_t longest = 4096;                   // prompts of up to so many tokens are of interest
  int repeats = 5;                          // of each short run
  std::function<void(double)> on_progress;  // told the share of the work done; may be empty
};

/// For 1, 2, 4, ... and all ranks at work at once: the time of a layer for chunks of 1 to `longest` rows at the start
/// and at the end of such a prompt, of what precedes and follows the layers, and of the links. Only the first layers
/// run, except for single rows. Ranks of one name are measured once. Takes the engine for itself. Throws what Session
/// throws.
CostProfile MeasureProfile(const std::shared_ptr<EngineState>& engine, const ProfileOptions& options);

/// The links of `members` while all of them copy at once, each to the next: set-up, bandwidth, and the time until a
/// waiting rank goes on. Of links whose transports do not tell when bytes moved, the time until they arrived.
LinkCost MeasureLinks(EngineState& engine, std::span<const int> members, int64_t longest);

/// The mean without the smallest and the largest tenth: a phase is a sum of many stretches, and shares their mean,
/// not their median, but one hiccup of the machine should not tell.
double TypicalSeconds(std::vector<double> seconds);

}  // namespace runahead
