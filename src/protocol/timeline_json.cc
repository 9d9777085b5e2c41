#include "protocol/timeline_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "protocol/json_text.h"

namespace runahead::protocol {
namespace {

constexpr size_t kMostEvents = 1000;

/// Joins neighbours of one rank and kind with at most `gap_ms` between them. Ordered by rank, kind and begin.
std::vector<TimelineEvent> Joined(const std::vector<TimelineEvent>& events, double gap_ms) {
  std::vector<TimelineEvent> joined;
  for (const TimelineEvent& event : events) {
    const bool goes_on = !joined.empty() && joined.back().rank == event.rank &&
                         joined.back().activity == event.activity && event.begin_ms - joined.back().end_ms <= gap_ms;
    if (!goes_on) {
      joined.push_back(event);
      continue;
    }
    TimelineEvent& last = joined.back();
    last.end_ms = std::max(last.end_ms, event.end_ms);
    last.bytes += event.bytes;
    if (last.layer != event.layer) last.layer = TimelineEvent::kAllLayers;
    if (last.peer != event.peer) last.peer = -1;
  }
  return joined;
}

/// At most kMostEvents of all.
std::vector<TimelineEvent> Fewer(std::vector<TimelineEvent> events) {
  constexpr double kFinest = 1e-3;  // of the whole, which is less than a pixel
  constexpr int kDoublings = 10;    // to the whole
  const auto key = [](const TimelineEvent& event) { return std::tuple(event.rank, event.activity, event.begin_ms); };
  std::sort(events.begin(), events.end(), [&](const auto& a, const auto& b) { return key(a) < key(b); });
  double begin_ms = events.front().begin_ms;
  double end_ms = events.front().end_ms;
  for (const TimelineEvent& event : events) {
    begin_ms = std::min(begin_ms, event.begin_ms);
    end_ms = std::max(end_ms, event.end_ms);
  }
  double gap_ms = (end_ms - begin_ms) * kFinest;
  for (int i = 0; i <= kDoublings && events.size() > kMostEvents; ++i) {
    events = Joined(events, gap_ms);
    gap_ms *= 2;
  }
  if (events.size() > kMostEvents) events.resize(kMostEvents);
  return events;
}

}  // namespace

std::string TimelineJson(std::vector<TimelineEvent> events) {
  if (events.size() > kMostEvents) events = Fewer(std::move(events));
  std::string list;
  for (const TimelineEvent& event : events) {
    AddTo(list,
          fmt::format(
              R"({{"rank":{},"layer":{},"kind":"{}","begin_ms":{:.3f},"end_ms":{:.3f},"bytes":{},"peer":{}}})",
              event.rank, event.layer, Name(event.activity), event.begin_ms, event.end_ms, event.bytes, event.peer));
  }
  return "[" + list + "]";
}

}  // namespace runahead::protocol
