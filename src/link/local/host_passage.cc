#include <algorithm>
#include <cstring>
#include <thread>

#include "link/local/passage.h"

namespace runahead {
namespace {

/// Rows that are there, but not to be seen before their time.
class LateArrival final : public Arrival {
 public:
  explicit LateArrival(const MovedAt& when) : when_(when) {}

  Status Wait(Deadline deadline) override {
    std::this_thread::sleep_until(std::min(when_.end, deadline));
    if (when_.end > deadline) return Status::Failed("the copy did not end before the deadline");
    return Status::Ok();
  }
  Status OrderBefore(Stream& /*stream*/, Deadline deadline) override { return Wait(deadline); }
  [[nodiscard]] std::optional<MovedAt> Moved() const override { return when_; }

 private:
  MovedAt when_;
};

class HostPassage final : public Passage {
 public:
  HostPassage(int from, int to, std::shared_ptr<Throttle> throttle)
      : from_(from), to_(to), throttle_(std::move(throttle)) {}

  std::shared_ptr<Departure> Depart(Stream& after) override {
    after.Synchronize();
    return nullptr;
  }

  std::shared_ptr<Arrival> Move(const KvSpan& from, const KvSpan& to,
                                const std::shared_ptr<Departure>& /*when*/) override {
    const auto ready = Clock::now();
    std::memcpy(to.k.data(), from.k.data(), from.k.bytes());
    std::memcpy(to.v.data(), from.v.data(), from.v.bytes());
    if (throttle_ == nullptr || !throttle_->Limits(from_, to_)) return nullptr;
    return std::make_shared<LateArrival>(throttle_->Book(from_, to_, from.bytes(), ready));
  }

 private:
  int from_;
  int to_;
  std::shared_ptr<Throttle> throttle_;
};

}  // namespace

std::unique_ptr<Passage> MakeHostPassage(int from, int to, std::shared_ptr<Throttle> throttle) {
  return std::make_unique<HostPassage>(from, to, std::move(throttle));
}

}  // namespace runahead
