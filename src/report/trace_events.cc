#include "report/trace_events.h"

#include <fmt/format.h>

#include <array>

#include "base/check.h"
#include "base/json.h"
#include "report/lanes.h"

namespace runahead::report {
namespace {

constexpr double kMicrosecondsPerMillisecond = 1000;

/// A thread of its own for each of the three things that a rank does at the same time.
constexpr std::array kThreads = {"", " sends", " receives"};

int ThreadIn(Activity activity) {
  switch (activity) {
    case Activity::kCompute:
    case Activity::kWait:
      return 0;
    case Activity::kSend:
      return 1;
    case Activity::kReceive:
      return 2;
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown activity");
}

int ThreadId(int rank, int thread) { return static_cast<int>(kThreads.size()) * rank + thread; }

Json ThreadName(int rank, int thread) {
  return {{"ph", "M"},
          {"name", "thread_name"},
          {"pid", 0},
          {"tid", ThreadId(rank, thread)},
          {"args", {{"name", fmt::format("rank {}{}", rank, kThreads.at(static_cast<size_t>(thread)))}}}};
}

Json Complete(const TimelineEvent& event) {
  constexpr double kGigabytesPerMillisecond = 1e6;  // bytes
  const double ms = event.end_ms - event.begin_ms;
  Json args = {{"layer", event.layer}};
  if (event.activity != Activity::kCompute) args["bytes"] = event.bytes;
  if (event.peer >= 0) {
    args["peer"] = event.peer;
    if (ms > 0) args["GB/s"] = static_cast<double>(event.bytes) / ms / kGigabytesPerMillisecond;
  }
  return {{"ph", "X"},
          {"name", fmt::format("{} {}", Name(event.activity), event.layer)},
          {"cat", std::string(Name(event.activity))},
          {"pid", 0},
          {"tid", ThreadId(event.rank, ThreadIn(event.activity))},
          {"ts", event.begin_ms * kMicrosecondsPerMillisecond},
          {"dur", ms * kMicrosecondsPerMillisecond},
          {"args", std::move(args)}};
}

}  // namespace

std::string TraceEvents(std::span<const TimelineEvent> events) {
  Json trace = Json::array();
  for (const Lane& lane : SplitIntoLanes(events).ranks) {
    for (size_t thread = 0; thread < kThreads.size(); ++thread) {
      trace.push_back(ThreadName(lane.rank, static_cast<int>(thread)));
    }
    for (const TimelineEvent& event : lane.events) trace.push_back(Complete(event));
  }
  return Json{{"traceEvents", std::move(trace)}, {"displayTimeUnit", "ms"}}.dump(1) + "\n";
}

}  // namespace runahead::report
