#include "report/trace_events.h"

#include <fmt/format.h>

#include "base/json.h"
#include "report/lanes.h"

namespace runahead::report {
namespace {

constexpr double kMicrosecondsPerMillisecond = 1000;

int ThreadOf(int rank, bool sends) { return 2 * rank + (sends ? 1 : 0); }

Json ThreadName(int rank, bool sends) {
  return {{"ph", "M"},
          {"name", "thread_name"},
          {"pid", 0},
          {"tid", ThreadOf(rank, sends)},
          {"args", {{"name", fmt::format("rank {}{}", rank, sends ? " sends" : "")}}}};
}

Json Complete(const TimelineEvent& event) {
  Json args = {{"layer", event.layer}};
  if (event.activity != Activity::kCompute) args["bytes"] = event.bytes;
  return {{"ph", "X"},
          {"name", fmt::format("{} {}", Name(event.activity), event.layer)},
          {"cat", std::string(Name(event.activity))},
          {"pid", 0},
          {"tid", ThreadOf(event.rank, event.activity == Activity::kSend)},
          {"ts", event.begin_ms * kMicrosecondsPerMillisecond},
          {"dur", (event.end_ms - event.begin_ms) * kMicrosecondsPerMillisecond},
          {"args", std::move(args)}};
}

}  // namespace

std::string TraceEvents(std::span<const TimelineEvent> events) {
  Json trace = Json::array();
  for (const Lane& lane : SplitIntoLanes(events).ranks) {
    trace.push_back(ThreadName(lane.rank, false));
    trace.push_back(ThreadName(lane.rank, true));
    for (const TimelineEvent& event : lane.events) trace.push_back(Complete(event));
  }
  return Json{{"traceEvents", std::move(trace)}, {"displayTimeUnit", "ms"}}.dump(1) + "\n";
}

}  // namespace runahead::report
