#include "link/ucx/ucx_fabric.h"

#include <map>
#include <mutex>

#include "base/check.h"
#include "link/ucx/ucx_address.h"
#include "link/ucx/ucx_group.h"
#include "link/ucx/ucx_worker.h"
#include "runahead/error.h"

namespace runahead {
namespace {

/// A span on its way, as the rank here sees it.
class UcxTransfer final : public Transfer {
 public:
  UcxTransfer(UcxWaiters& waiters, std::shared_ptr<UcxPost> post) : waiters_(waiters), post_(std::move(post)) {}

  Status Wait(Deadline deadline) override {
    if (Status moved = waiters_.Await(*post_, deadline); !moved.ok()) return moved;
    return post_->landing == nullptr ? Status::Ok() : post_->landing->Wait(deadline);
  }

  Status OrderBefore(Stream& stream, Deadline deadline) override {
    if (Status moved = waiters_.Await(*post_, deadline); !moved.ok()) return moved;
    return post_->landing == nullptr ? Status::Ok() : post_->landing->OrderBefore(stream, deadline);
  }

  [[nodiscard]] std::optional<MovedAt> Moved() const override { return waiters_.Moved(*post_); }

 private:
  UcxWaiters& waiters_;
  std::shared_ptr<UcxPost> post_;
};

/// One direction between a rank here and one elsewhere: only one end of it is used.
class UcxLink final : public Link {
 public:
  UcxLink(UcxWorker& worker, std::shared_ptr<UcxGroupState> group, int from, int to, UcxLane* lane)
      : worker_(worker), group_(std::move(group)), from_(from), to_(to), lane_(lane) {}

  std::unique_ptr<Transfer> Send(const KvSpan& span, Stream& after) override {
    CHECK(group_->IsOwn(from_));
    const auto post = NewPost(span, /*sending=*/true);
    const auto start = [&worker = worker_, group = group_, post] {
      worker.Run([group, post] { group->StartSend(post); });
    };
    if (lane_ != nullptr) {
      lane_->Down(span, post->staging, after, start);
    } else {
      after.Synchronize();
      start();
    }
    return std::make_unique<UcxTransfer>(group_->waiters(), post);
  }

  std::unique_ptr<Transfer> Receive(const KvSpan& span) override {
    CHECK(group_->IsOwn(to_));
    const auto post = NewPost(span, /*sending=*/false);
    worker_.Run([group = group_, post] { group->StartReceive(post); });
    return std::make_unique<UcxTransfer>(group_->waiters(), post);
  }

 private:
  std::shared_ptr<UcxPost> NewPost(const KvSpan& span, bool sending) {
    auto post = std::make_shared<UcxPost>();
    post->span = span;
    post->from = from_;
    post->to = to_;
    post->sending = sending;
    post->k = static_cast<std::byte*>(span.k.data());
    post->v = static_cast<std::byte*>(span.v.data());
    if (lane_ != nullptr) {
      post->lane = lane_;
      if (lane_->ReachedByUcx(span)) {
        post->memory = UCS_MEMORY_TYPE_CUDA;
      } else {
        post->staging = lane_->Take(span.bytes());
        post->k = post->staging.get();
        post->v = post->k + span.k.bytes();
      }
    }
    return post;
  }

  UcxWorker& worker_;
  std::shared_ptr<UcxGroupState> group_;
  int from_;
  int to_;
  UcxLane* lane_;  // way to the GPU of the rank here; null: its rows are in host memory
};

class UcxFabric final : public Fabric {
 public:
  UcxFabric(std::shared_ptr<UcxWorker> worker, const UcxGroup& group)
      : worker_(std::move(worker)), ranks_(static_cast<int>(group.peers.size())) {
    for (const UcxPeer& peer : group.peers) (void)UnwrapUcxAddress(peer.address);
    for (const UcxGroup::Own& own : group.own) {
      if (own.device != nullptr && !own.device->is_host()) lanes_.emplace(own.rank, &worker_->LaneOf(*own.device));
    }
    state_ = std::make_shared<UcxGroupState>(*worker_, group);
    links_.resize(group.peers.size() * group.peers.size());
    worker_->Run([worker = worker_.get(), state = state_] { worker->Attach(state->id(), state); });
  }

  ~UcxFabric() override {
    // What UCX still works at may touch the ranks' memory: it gets a moment to end, then its connections go.
    constexpr auto kSettle = std::chrono::milliseconds(200);
    constexpr auto kClosed = std::chrono::seconds(5);
    for (const auto& [rank, lane] : lanes_) lane->Settle();
    worker_->RunAndWait([&] { worker_->Detach(state_->id()); });
    if (!state_->AwaitQuiet(After(kSettle))) {
      worker_->RunAndWait([&] { state_->AbandonBusy(); });
      CHECK(state_->AwaitQuiet(After(kClosed)));
    }
    for (const auto& [rank, lane] : lanes_) lane->Settle();  // what came last
  }
  UcxFabric(const UcxFabric&) = delete;
  UcxFabric& operator=(const UcxFabric&) = delete;

  [[nodiscard]] int ranks() const override { return ranks_; }

  Link& Between(int from, int to) override {
    CHECK_NE(from, to);
    CHECK(state_->IsOwn(from) != state_->IsOwn(to));
    const std::lock_guard lock(making_);
    std::unique_ptr<UcxLink>& link = links_.at(static_cast<size_t>(from * ranks_ + to));
    if (link == nullptr) {
      const int here = state_->IsOwn(from) ? from : to;
      const auto lane = lanes_.find(here);
      link = std::make_unique<UcxLink>(*worker_, state_, from, to, lane == lanes_.end() ? nullptr : lane->second);
    }
    return *link;
  }

  void Fail(const Status& reason) override {
    if (!state_->waiters().Fail(reason)) return;
    worker_->Run([state = state_] { state->TellFailure(); });
  }

 private:
  std::shared_ptr<UcxWorker> worker_;
  int ranks_;
  std::map<int, UcxLane*> lanes_;  // by own rank, of those on GPUs
  std::shared_ptr<UcxGroupState> state_;
  std::mutex making_;
  std::vector<std::unique_ptr<UcxLink>> links_;  // [from, to], null until first used, guarded by making_
};

}  // namespace

bool BuiltWithUcx() { return true; }

std::shared_ptr<UcxPort> MakeUcxPort(const UcxOptions& options) { return std::make_shared<UcxWorker>(options); }

std::unique_ptr<Fabric> MakeUcxFabric(std::shared_ptr<UcxPort> port, const UcxGroup& group) {
  return std::make_unique<UcxFabric>(std::static_pointer_cast<UcxWorker>(std::move(port)), group);
}

}  // namespace runahead
