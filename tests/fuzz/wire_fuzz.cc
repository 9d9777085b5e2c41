// Fuzzes what ranks tell each other: an input is a plan, or behind a letter another message (see below). What is
// taken must be itself again.
#include <cstdint>

#include "engine/rank_orders.h"
#include "fuzz_folder.h"
#include "group/group_messages.h"
#include "group/step_check.h"
#include "wire/step_messages.h"

namespace runahead {
namespace {

template <typename T>
void MustBeItself(std::string_view bytes) {
  T value;
  if (Decode(bytes, value).ok() && Encode(value) != bytes) __builtin_trap();
}

void TakeStep(std::string_view bytes) {
  RankStep step;
  if (!Decode(bytes, step).ok()) return;
  if (EncodeStep(step.rank, step.links, step.plan) != bytes) __builtin_trap();
  (void)CheckStepPlan(step.plan, {.rank = 1, .ranks = 3, .vocab = 512, .pages = 64, .short_positions = 2048});
}

void TakeResult(std::string_view bytes) {
  StepResult result;
  if (!DecodeStepResult(bytes, result).ok()) return;
  if (EncodeStepResult(result) != bytes) __builtin_trap();
  (void)CheckStepResult(result, 1, {1, 2}, 512);
}

void TakePlan(std::string_view bytes) {
  StepPlan plan;
  if (DecodeStepPlan(bytes, plan).ok() && EncodeStepPlan(plan) != bytes) __builtin_trap();
}

void Take(char letter, std::string_view bytes) {
  switch (letter) {
    case 'r':
      return TakeResult(bytes);
    case 's':
      return TakeStep(bytes);
    case 'f':
      return MustBeItself<std::vector<RankFacts>>(bytes);
    case 'p':
      return MustBeItself<PositionRoom>(bytes);
    case 'n':
      return MustBeItself<StepName>(bytes);
    case 'l':
      return MustBeItself<LostProcess>(bytes);
    case 'm':
      return MustBeItself<MemberProcess>(bytes);
    case 'w':
      return MustBeItself<RankWork>(bytes);
    case 'd':
      return MustBeItself<RankWorkDone>(bytes);
    case 'P':
      return MustBeItself<PhaseOrder>(bytes);
    case 'A':
      return MustBeItself<PhaseAnswer>(bytes);
    case 'T':
      return MustBeItself<TokenOrder>(bytes);
    case 'S':
      return MustBeItself<ShortRunsOrder>(bytes);
    case 'H':
      return MustBeItself<HopsOrder>(bytes);
    case 'h':
      return MustBeItself<std::vector<HopTimes>>(bytes);
    case 'e':
      return MustBeItself<std::vector<Stretches>>(bytes);
    case 'L':
      return MustBeItself<std::vector<float>>(bytes);
    default:
      return;
  }
}

}  // namespace
}  // namespace runahead

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = runahead::fuzz::TextOf(data, size);
  runahead::TakePlan(input);
  if (!input.empty()) runahead::Take(input.front(), input.substr(1));
  return 0;
}
