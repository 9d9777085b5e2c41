// The events of a prompt phase, rank by rank: what every picture of a timeline starts from.
#pragma once

#include <span>
#include <vector>

#include "runahead/timeline.h"

namespace runahead::report {

/// One rank's events by the time they begin. No event ends before it begins.
struct Lane {
  int rank = 0;
  std::vector<TimelineEvent> events;

  /// Milliseconds in which at least one event of `activity` was going on.
  [[nodiscard]] double Busy(Activity activity) const;
};

struct Lanes {
  std::vector<Lane> ranks;  // every rank from 0 to the largest that has an event
  double end_ms = 0;        // end of the last event, ms
};

Lanes SplitIntoLanes(std::span<const TimelineEvent> events);

}  // namespace runahead::report
