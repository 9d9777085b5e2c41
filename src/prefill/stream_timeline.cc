#include "prefill/stream_timeline.h"

namespace runahead {

void StreamTimeline::Start(Stream& stream) {
  if (timeline_ == nullptr) return;
  stream.Synchronize();
  marks_.clear();
  stretches_.clear();
  const auto asked = Clock::now();
  marks_.push_back(stream.NewMark());
  stream.Synchronize();
  origin_ = asked + (Clock::now() - asked) / 2;
}

void StreamTimeline::EndOf(int layer, Activity activity, size_t bytes, Stream& stream) {
  if (timeline_ == nullptr) return;
  stretches_.push_back({layer, activity, bytes, marks_.size()});
  marks_.push_back(stream.NewMark());
}

void StreamTimeline::Skip(Stream& stream) {
  if (timeline_ != nullptr) marks_.push_back(stream.NewMark());
}

void StreamTimeline::Record() {
  if (timeline_ == nullptr) return;
  const auto time_of = [&](size_t mark) {
    const std::chrono::duration<double, std::milli> since(marks_[mark]->MillisecondsSince(*marks_.front()));
    return origin_ + std::chrono::duration_cast<Clock::duration>(since);
  };
  for (const Stretch& stretch : stretches_) {
    timeline_->Record(stretch.layer, stretch.activity, time_of(stretch.end - 1), time_of(stretch.end), stretch.bytes);
  }
}

}  // namespace runahead
