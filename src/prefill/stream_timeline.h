// What a rank's stream did when, by its device's own clock.
#pragma once

#include <memory>
#include <vector>

#include "base/timeline.h"
#include "tensor/device.h"

namespace runahead {

/// Puts marks between the stretches of a stream's work and, once the work is done, records the stretches in a
/// timeline. Without a timeline nothing happens. Used by the rank's thread.
class StreamTimeline {
 public:
  /// `timeline` may be null, and must outlive this.
  explicit StreamTimeline(RankTimeline* timeline) : timeline_(timeline) {}

  /// The first stretch begins. Waits for the stream, to learn what its device's clock shows now (to within some
  /// 10 us on a GPU).
  void Start(Stream& stream);
  /// The stretch since the last mark was `activity`; the next one begins.
  void EndOf(int layer, Activity activity, size_t bytes, Stream& stream);
  /// The stretch since the last mark is nobody's; the next one begins.
  void Skip(Stream& stream);
  /// Writes all stretches to the timeline; the stream has passed them.
  void Record();

 private:
  struct Stretch {
    int layer;
    Activity activity;
    size_t bytes;
    size_t end;  // index into marks_; the stretch begins at the mark before
  };

  RankTimeline* timeline_;
  Clock::time_point origin_;  // host time of marks_[0]
  std::vector<std::unique_ptr<Mark>> marks_;
  std::vector<Stretch> stretches_;
};

}  // namespace runahead
