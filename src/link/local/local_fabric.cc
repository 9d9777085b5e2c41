#include "link/local/local_fabric.h"

#include <fmt/format.h>

#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <vector>

namespace runahead {
namespace {

/// What every transfer of a fabric waits on: one lock for all is enough, since it is held for a few instructions per
/// layer.
struct Shared {
  std::mutex mutex;
  std::condition_variable changed;
  Status failure;  // of the whole fabric
};

/// One end of a span's journey: what was posted, and whether its copy is done.
struct Post {
  KvSpan span;
  bool done = false;  // guarded by Shared::mutex
  MovedAt moved;      // guarded by Shared::mutex
  Status refused;     // guarded by Shared::mutex: the two ends did not fit
};

class LocalTransfer final : public Transfer {
 public:
  LocalTransfer(Shared& shared, std::shared_ptr<const Post> post, std::string name)
      : shared_(shared), post_(std::move(post)), name_(std::move(name)) {}

  Status Wait(Deadline deadline) override {
    std::unique_lock lock(shared_.mutex);
    const bool woken = shared_.changed.wait_until(
        lock, deadline, [&] { return post_->done || !post_->refused.ok() || !shared_.failure.ok(); });
    if (post_->done) return Status::Ok();
    if (!post_->refused.ok()) return post_->refused;
    if (woken) return shared_.failure;
    return Status::Failed(fmt::format("{}: layer {} rows [{}, {}) did not arrive before the deadline", name_,
                                      post_->span.layer, post_->span.begin, post_->span.end));
  }

  Status OrderBefore(Stream& /*stream*/, Deadline deadline) override { return Wait(deadline); }

  [[nodiscard]] std::optional<MovedAt> Moved() const override {
    const std::lock_guard lock(shared_.mutex);
    return post_->done ? std::optional(post_->moved) : std::nullopt;
  }

 private:
  Shared& shared_;
  std::shared_ptr<const Post> post_;
  std::string name_;
};

class LocalLink final : public Link {
 public:
  LocalLink(Shared& shared, int from, int to) : shared_(shared), name_(fmt::format("link {} -> {}", from, to)) {}

  std::unique_ptr<Transfer> Send(const KvSpan& span, Stream& after) override {
    after.Synchronize();
    return Meet(span, sends_, receives_, [](const KvSpan& own, const KvSpan& other) { Copy(own, other); });
  }

  std::unique_ptr<Transfer> Receive(const KvSpan& span) override {
    return Meet(span, receives_, sends_, [](const KvSpan& own, const KvSpan& other) { Copy(other, own); });
  }

 private:
  using Queue = std::deque<std::shared_ptr<Post>>;

  static void Copy(const KvSpan& from, const KvSpan& to) {
    std::memcpy(to.k.data(), from.k.data(), from.k.bytes());
    std::memcpy(to.v.data(), from.v.data(), from.v.bytes());
  }

  /// Queues a post, or, when the other side has already posted, copies at once.
  template <typename CopyWith>
  std::unique_ptr<Transfer> Meet(const KvSpan& span, Queue& own, Queue& others, const CopyWith& copy) {
    auto post = std::make_shared<Post>();
    post->span = span;
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
      if (const Status fit = Fit(span, other->span); !fit.ok()) {
        post->refused = other->refused = fit;
        shared_.changed.notify_all();
        return transfer;
      }
    }
    const auto begin = Clock::now();
    copy(span, other->span);
    {
      const std::lock_guard lock(shared_.mutex);
      post->moved = other->moved = {begin, Clock::now()};
      post->done = other->done = true;
    }
    shared_.changed.notify_all();
    return transfer;
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
  Queue sends_;     // guarded by Shared::mutex
  Queue receives_;  // guarded by Shared::mutex
};

class LocalFabric final : public Fabric {
 public:
  explicit LocalFabric(int ranks) : ranks_(ranks) {
    for (int from = 0; from < ranks; ++from) {
      for (int to = 0; to < ranks; ++to) links_.push_back(std::make_unique<LocalLink>(shared_, from, to));
    }
  }

  [[nodiscard]] int ranks() const override { return ranks_; }

  Link& Between(int from, int to) override {
    CHECK_NE(from, to);
    return *links_.at(static_cast<size_t>(from * ranks_ + to));
  }

  void Fail(const Status& reason) override {
    {
      const std::lock_guard lock(shared_.mutex);
      if (shared_.failure.ok()) shared_.failure = reason;
    }
    shared_.changed.notify_all();
  }

 private:
  int ranks_;
  Shared shared_;
  std::vector<std::unique_ptr<LocalLink>> links_;
};

}  // namespace

std::unique_ptr<Fabric> MakeLocalFabric(int ranks) { return std::make_unique<LocalFabric>(ranks); }

}  // namespace runahead
