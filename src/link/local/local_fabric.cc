#include "link/local/local_fabric.h"

#include <fmt/format.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <vector>

#include "link/local/passage.h"
#include "runahead/error.h"

namespace runahead {
namespace {

/// What every transfer of a fabric waits on: one lock for all is enough, since it is held for a few instructions per
/// layer.
struct Shared {
  std::mutex mutex;
  std::condition_variable changed;
  Status failure;  // failure of the whole fabric
};

/// One end of a span's journey.
struct Post {
  KvSpan span;
  std::shared_ptr<Departure> departure;  // departure from the sender's end
  // Guarded by Shared::mutex:
  bool moved = false;                // the copy was started; `arrival` tells when it is done
  std::shared_ptr<Arrival> arrival;  // nothing: it is done
  MovedAt when;                      // times of a copy that was done when its start returned
  Status refused;                    // the two ends did not fit, or the copy could not be started
};

class LocalTransfer final : public Transfer {
 public:
  LocalTransfer(Shared& shared, std::shared_ptr<const Post> post, std::string name)
      : shared_(shared), post_(std::move(post)), name_(std::move(name)) {}

  Status Wait(Deadline deadline) override {
    if (Status met = AwaitMove(deadline); !met.ok()) return met;
    return post_->arrival == nullptr ? Status::Ok() : Named(post_->arrival->Wait(deadline));
  }

  Status OrderBefore(Stream& stream, Deadline deadline) override {
    if (Status met = AwaitMove(deadline); !met.ok()) return met;
    return post_->arrival == nullptr ? Status::Ok() : Named(post_->arrival->OrderBefore(stream, deadline));
  }

  [[nodiscard]] std::optional<MovedAt> Moved() const override {
    const std::lock_guard lock(shared_.mutex);
    if (!post_->moved) return std::nullopt;
    return post_->arrival == nullptr ? std::optional(post_->when) : post_->arrival->Moved();
  }

 private:
  /// Waits until both ends have posted.
  Status AwaitMove(Deadline deadline) {
    std::unique_lock lock(shared_.mutex);
    const bool woken = shared_.changed.wait_until(
        lock, deadline, [&] { return post_->moved || !post_->refused.ok() || !shared_.failure.ok(); });
    if (post_->moved) return Status::Ok();
    if (!post_->refused.ok()) return post_->refused;
    if (woken) return shared_.failure;
    return Status::Failed(fmt::format("{}: {} did not arrive before the deadline", name_, Rows()));
  }

  [[nodiscard]] Status Named(const Status& status) const {
    return status.ok() ? status : Status::Failed(fmt::format("{}: {}: {}", name_, Rows(), status.message()));
  }
  [[nodiscard]] std::string Rows() const {
    return fmt::format("layer {} rows [{}, {})", post_->span.layer, post_->span.begin, post_->span.end);
  }

  Shared& shared_;
  std::shared_ptr<const Post> post_;
  std::string name_;
};

class LocalLink final : public Link {
 public:
  LocalLink(Shared& shared, int from, int to, std::unique_ptr<Passage> passage)
      : shared_(shared), name_(fmt::format("link {} -> {}", from, to)), passage_(std::move(passage)) {}

  std::unique_ptr<Transfer> Send(const KvSpan& span, Stream& after) override {
    auto post = std::make_shared<Post>();
    post->span = span;
    post->departure = passage_->Depart(after);
    return Meet(post, sends_, receives_,
                [&](const Post& other) { return passage_->Move(span, other.span, post->departure); });
  }

  std::unique_ptr<Transfer> Receive(const KvSpan& span) override {
    auto post = std::make_shared<Post>();
    post->span = span;
    return Meet(post, receives_, sends_,
                [&](const Post& other) { return passage_->Move(other.span, span, other.departure); });
  }

 private:
  using Queue = std::deque<std::shared_ptr<Post>>;

  /// Queues a post, or, when the other side has already posted, starts the copy at once.
  template <typename Move>
  std::unique_ptr<Transfer> Meet(const std::shared_ptr<Post>& post, Queue& own, Queue& others, const Move& move) {
    auto transfer = std::make_unique<LocalTransfer>(shared_, post, name_);
    std::shared_ptr<Post> other;
    {
      const std::lock_guard lock(shared_.mutex);
      if (!shared_.failure.ok()) return transfer;
      if (others.empty()) {
        own.push_back(post);
        return transfer;
      }
      other = others.front();
      others.pop_front();
    }
    if (const Status fit = Fit(post->span, other->span); !fit.ok()) {
      Refuse(*post, *other, fit);
      return transfer;
    }
    const auto begin = Clock::now();
    std::shared_ptr<Arrival> arrival;
    try {
      arrival = move(*other);
    } catch (const Error& error) {
      Refuse(*post, *other, Status::Failed(fmt::format("{}: {}", name_, error.what())));
      return transfer;
    }
    {
      const std::lock_guard lock(shared_.mutex);
      post->arrival = other->arrival = std::move(arrival);
      post->when = other->when = {begin, Clock::now()};
      post->moved = other->moved = true;
    }
    shared_.changed.notify_all();
    return transfer;
  }

  void Refuse(Post& one, Post& other, const Status& reason) {
    {
      const std::lock_guard lock(shared_.mutex);
      one.refused = other.refused = reason;
    }
    shared_.changed.notify_all();
  }

  [[nodiscard]] Status Fit(const KvSpan& a, const KvSpan& b) const {
    const bool same = a.layer == b.layer && a.begin == b.begin && a.end == b.end && a.k.shape() == b.k.shape() &&
                      a.k.dtype() == b.k.dtype();
    if (same) return Status::Ok();
    return Status::Failed(fmt::format("{}: one end posted layer {} rows [{}, {}), the other layer {} rows [{}, {})",
                                      name_, a.layer, a.begin, a.end, b.layer, b.begin, b.end));
  }

  Shared& shared_;
  std::string name_;
  std::unique_ptr<Passage> passage_;
  Queue sends_;     // guarded by Shared::mutex
  Queue receives_;  // guarded by Shared::mutex
};

class LocalFabric final : public Fabric {
 public:
  /// `gpus` null: the ranks are in host memory.
  LocalFabric(int ranks, std::shared_ptr<Throttle> throttle, std::unique_ptr<GpuPassages> gpus)
      : ranks_(ranks),
        throttle_(std::move(throttle)),
        gpus_(std::move(gpus)),
        links_(static_cast<size_t>(ranks) * static_cast<size_t>(ranks)) {}

  [[nodiscard]] int ranks() const override { return ranks_; }

  Link& Between(int from, int to) override {
    CHECK_NE(from, to);
    const std::lock_guard lock(making_);
    std::unique_ptr<LocalLink>& link = links_.at(static_cast<size_t>(from * ranks_ + to));
    if (link == nullptr) {
      std::unique_ptr<Passage> passage =
          gpus_ == nullptr ? MakeHostPassage(from, to, throttle_) : gpus_->Make(from, to);
      link = std::make_unique<LocalLink>(shared_, from, to, std::move(passage));
    }
    return *link;
  }

  void Fail(const Status& reason) override {
    {
      const std::lock_guard lock(shared_.mutex);
      if (shared_.failure.ok()) shared_.failure = reason;
    }
    shared_.changed.notify_all();
  }

  void KeepTimes(bool keep) override {
    if (gpus_ != nullptr) gpus_->KeepTimes(keep);
  }

 private:
  int ranks_;
  Shared shared_;
  std::shared_ptr<Throttle> throttle_;  // throttle of ranks in host memory; null: nothing is limited
  std::unique_ptr<GpuPassages> gpus_;   // null: ranks in host memory
  std::mutex making_;
  std::vector<std::unique_ptr<LocalLink>> links_;  // [from, to], null until first used, guarded by making_
};

}  // namespace

std::unique_ptr<Fabric> MakeLocalFabric(int ranks, std::shared_ptr<Throttle> throttle) {
  return std::make_unique<LocalFabric>(ranks, std::move(throttle), nullptr);
}

std::unique_ptr<Fabric> MakeCudaFabric(const std::vector<int>& gpus, bool through_host,
                                       std::shared_ptr<Throttle> throttle) {
  std::unique_ptr<GpuPassages> passages = MakeGpuPassages(gpus, through_host, std::move(throttle));
  return std::make_unique<LocalFabric>(static_cast<int>(gpus.size()), nullptr, std::move(passages));
}

}  // namespace runahead
