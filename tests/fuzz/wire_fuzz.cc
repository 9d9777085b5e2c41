// Fuzzes what ranks tell each other: an input is a plan, or behind an 'r' a result, behind an 's' a plan for a rank
// of another process, and behind an 'f' the facts of ranks. What is taken must be itself again.
#include <cstdint>

#include "fuzz_folder.h"
#include "group/group_messages.h"
#include "group/step_check.h"
#include "wire/step_messages.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace runahead;
  const std::string_view input = fuzz::TextOf(data, size);
  if (input.starts_with('r')) {
    StepResult result;
    if (DecodeStepResult(input.substr(1), result).ok() && EncodeStepResult(result) != input.substr(1))
      __builtin_trap();
    return 0;
  }
  if (input.starts_with('s')) {
    RankStep step;
    if (!Decode(input.substr(1), step).ok()) return 0;
    if (EncodeStep(step.rank, step.links, step.plan) != input.substr(1)) __builtin_trap();
    (void)CheckStepPlan(step.plan, {.rank = 1, .ranks = 3, .vocab = 512, .pages = 64, .short_positions = 2048});
    return 0;
  }
  if (input.starts_with('f')) {
    std::vector<RankFacts> facts;
    if (Decode(input.substr(1), facts).ok() && Encode(facts) != input.substr(1)) __builtin_trap();
    return 0;
  }
  StepPlan plan;
  if (DecodeStepPlan(input, plan).ok() && EncodeStepPlan(plan) != input) __builtin_trap();
  return 0;
}
