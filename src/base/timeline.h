// What a rank did when: the raw material of every picture and breakdown.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "base/deadline.h"

namespace runahead {

enum class Activity : unsigned char { kCompute, kWait, kSend };

std::string_view Name(Activity activity);

/// One stretch of one rank's time.
struct TimelineEvent {
  int rank = 0;
  int layer = 0;
  Activity activity = Activity::kCompute;
  Clock::time_point begin;
  Clock::time_point end;
  size_t bytes = 0;  // moved, for waits and sends
};

/// The events of one rank, in order of their ends. Written by the rank's thread; read when it is done.
class RankTimeline {
 public:
  explicit RankTimeline(int rank) : rank_(rank) {}

  void Record(int layer, Activity activity, Clock::time_point begin, Clock::time_point end, size_t bytes = 0) {
    events_.push_back({rank_, layer, activity, begin, end, bytes});
  }
  [[nodiscard]] const std::vector<TimelineEvent>& events() const { return events_; }

 private:
  int rank_;
  std::vector<TimelineEvent> events_;
};

}  // namespace runahead
