// Records what one rank does when.
#pragma once

#include <vector>

#include "base/deadline.h"
#include "runahead/timeline.h"

namespace runahead {

/// The events of one rank, in the order they were recorded. Written by the rank's thread; read when it is done.
class RankTimeline {
 public:
  RankTimeline(int rank, Clock::time_point origin) : rank_(rank), origin_(origin) {}

  void Record(int layer, Activity activity, Clock::time_point begin, Clock::time_point end, size_t bytes,
              int peer = -1) {
    events_.push_back({rank_, layer, activity, Milliseconds(begin), Milliseconds(end), bytes, peer});
  }
  [[nodiscard]] const std::vector<TimelineEvent>& events() const { return events_; }

 private:
  [[nodiscard]] double Milliseconds(Clock::time_point time) const {
    return std::chrono::duration<double, std::milli>(time - origin_).count();
  }

  int rank_;
  Clock::time_point origin_;
  std::vector<TimelineEvent> events_;
};

}  // namespace runahead
