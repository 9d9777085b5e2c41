#include "report/lanes.h"

#include <algorithm>

#include "base/check.h"

namespace runahead::report {

double Lane::Busy(Activity activity) const {
  double busy = 0;
  double covered = 0;  // up to here everything is counted
  for (const TimelineEvent& event : events) {
    if (event.activity != activity) continue;
    const double begin = std::max(event.begin_ms, covered);
    if (event.end_ms <= begin) continue;
    busy += event.end_ms - begin;
    covered = event.end_ms;
  }
  return busy;
}

Lanes SplitIntoLanes(std::span<const TimelineEvent> events) {
  Lanes lanes;
  for (TimelineEvent event : events) {
    CHECK_GE(event.rank, 0);
    while (lanes.ranks.size() <= static_cast<size_t>(event.rank)) {
      lanes.ranks.push_back({static_cast<int>(lanes.ranks.size()), {}});
    }
    event.begin_ms = std::max(event.begin_ms, 0.0);
    event.end_ms = std::max(event.end_ms, event.begin_ms);
    lanes.end_ms = std::max(lanes.end_ms, event.end_ms);
    lanes.ranks[static_cast<size_t>(event.rank)].events.push_back(event);
  }
  for (Lane& lane : lanes.ranks) {
    std::stable_sort(lane.events.begin(), lane.events.end(),
                     [](const TimelineEvent& a, const TimelineEvent& b) { return a.begin_ms < b.begin_ms; });
  }
  return lanes;
}

}  // namespace runahead::report
