// Whether what another process says fits this one: the ids, pages and ranks in it are used as indices.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "worker/step_plan.h"

namespace runahead {

/// What a rank that is told a step has.
struct StepBounds {
  int rank = 0;
  int ranks = 0;                // ranks of the group
  int64_t vocab = 0;            // token ids
  int32_t pages = 0;            // pages of the rank's cache
  int64_t short_positions = 0;  // positions in the tables for short sequences
  int64_t long_positions = 0;   // and for long ones
  bool host_memory = true;      // whether its rows lie where they can be encoded
};

/// Fails naming what is out of range. Which sequences have samplers is the worker's to know.
Status CheckStepPlan(const StepPlan& plan, const StepBounds& bounds);

/// Whether `result` answers a step of `rank` that draws for these sequences, in this order.
Status CheckStepResult(const StepResult& result, int rank, const std::vector<SequenceId>& draws, int64_t vocab);

}  // namespace runahead
