#include "link/ucx/ucx_group.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/check.h"
#include "runahead/error.h"

namespace runahead {
namespace {

/// Most receivers that one link keeps for sends to come.
constexpr size_t kMostReady = 1 << 16;

std::string NameOf(int from, int to) { return fmt::format("link {} -> {}", from, to); }

std::string Rows(int layer, int64_t begin, int64_t end) {
  return fmt::format("layer {} rows [{}, {})", layer, begin, end);
}

/// Text of another process, fit for a message.
std::string Printable(std::string_view text) {
  std::string line(text.substr(0, kMostUcxText));
  std::replace_if(
      line.begin(), line.end(), [](unsigned char byte) { return byte < ' ' || byte == 0x7F; }, ' ');
  return line;
}

/// "rank 2", or "ranks 2 and 3 on hostb".
std::string RanksAt(const std::vector<UcxPeer>& peers, const std::string& address) {
  std::vector<size_t> ranks;
  for (size_t rank = 0; rank < peers.size(); ++rank) {
    if (peers[rank].address == address) ranks.push_back(rank);
  }
  const std::string& host = peers.at(ranks.front()).host;
  return fmt::format("{} {}{}{}", ranks.size() == 1 ? "rank" : "ranks", fmt::join(ranks, " and "),
                     host.empty() ? "" : " on ", host);
}

}  // namespace

Status UcxWaiters::Await(const UcxPost& post, Deadline deadline) {
  std::unique_lock lock(mutex_);
  const bool woken =
      changed_.wait_until(lock, deadline, [&] { return post.moved || !post.refused.ok() || !failure_.ok(); });
  if (post.moved) return Status::Ok();
  if (!post.refused.ok()) return post.refused;
  if (woken) return failure_;
  return Status::Failed(fmt::format("{}: {} did not arrive before the deadline", NameOf(post.from, post.to),
                                    Rows(post.span.layer, post.span.begin, post.span.end)));
}

std::optional<MovedAt> UcxWaiters::Moved(const UcxPost& post) {
  const std::lock_guard lock(mutex_);
  return post.moved ? std::optional(post.when) : std::nullopt;
}

void UcxWaiters::SetMoved(UcxPost& post) {
  {
    const std::lock_guard lock(mutex_);
    post.moved = true;
    post.when = {post.began, Clock::now()};
  }
  changed_.notify_all();
}

void UcxWaiters::Refuse(UcxPost& post, const Status& reason) {
  {
    const std::lock_guard lock(mutex_);
    post.refused = reason;
  }
  changed_.notify_all();
}

bool UcxWaiters::Fail(const Status& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_.ok()) return false;
    failure_ = reason;
  }
  changed_.notify_all();
  if (on_failure_) on_failure_(reason);
  return true;
}

Status UcxWaiters::failure() {
  const std::lock_guard lock(mutex_);
  return failure_;
}

UcxGroupState::UcxGroupState(UcxWorker& worker, const UcxGroup& group)
    : worker_(worker), id_(group.id), peers_(group.peers), is_own_(group.peers.size()), waiters_(group.on_failure) {
  for (const UcxGroup::Own& own : group.own) is_own_.at(static_cast<size_t>(own.rank)) = true;
}

bool UcxGroupState::AwaitQuiet(Deadline deadline) {
  std::unique_lock lock(busy_mutex_);
  return quiet_.wait_until(lock, deadline, [&] { return busy_.empty(); });
}

void UcxGroupState::Busy(const std::string& address, int change) {
  const std::lock_guard lock(busy_mutex_);
  const auto entry = busy_.try_emplace(address, 0).first;
  entry->second += change;
  if (entry->second == 0) busy_.erase(entry);
  if (busy_.empty()) quiet_.notify_all();
}

void UcxGroupState::AbandonBusy() {
  std::vector<std::string> addresses;
  {
    const std::lock_guard lock(busy_mutex_);
    for (const auto& [address, pieces] : busy_) addresses.push_back(address);
  }
  for (const std::string& address : addresses) worker_.Abandon(address);
}

UcxHeader UcxGroupState::HeaderOf(UcxHeader::Kind kind, const UcxPost& post, uint64_t number) const {
  UcxHeader header;
  header.kind = kind;
  header.group = id_;
  header.from = post.from;
  header.to = post.to;
  header.number = number;
  header.layer = post.span.layer;
  header.begin = post.span.begin;
  header.end = post.span.end;
  header.k_bytes = post.span.k.bytes();
  header.v_bytes = post.span.v.bytes();
  header.dtype = static_cast<uint32_t>(post.span.k.dtype());
  return header;
}

bool UcxGroupState::IsOurs(const UcxHeader& header, bool sending) const {
  const auto ranks = static_cast<int32_t>(peers_.size());
  if (header.from < 0 || header.from >= ranks || header.to < 0 || header.to >= ranks) return false;
  return IsOwn(header.from) == sending && IsOwn(header.to) != sending &&
         peers_.at(static_cast<size_t>(sending ? header.to : header.from)).linked;
}

void UcxGroupState::StartSend(const std::shared_ptr<UcxPost>& post) {
  if (!waiters_.failure().ok()) return;
  Lane& lane = LaneOf(post->from, post->to);
  const uint64_t number = lane.posted++;
  lane.waiting[number] = post;
  const auto ready = lane.ready.find(number);
  if (ready == lane.ready.end()) return;
  const UcxHeader header = ready->second;
  lane.ready.erase(ready);
  Match(post, header);
}

void UcxGroupState::StartReceive(const std::shared_ptr<UcxPost>& post) {
  if (!waiters_.failure().ok()) return;
  Lane& lane = LaneOf(post->from, post->to);
  const uint64_t number = lane.posted++;
  lane.waiting[number] = post;
  worker_.SendMessage(AddressOf(post->from), HeaderOf(UcxHeader::Kind::kReady, *post, number));
}

/// Both ends of a span that is sent from here are there.
void UcxGroupState::Match(const std::shared_ptr<UcxPost>& post, const UcxHeader& ready) {
  LaneOf(post->from, post->to).waiting.erase(ready.number);
  const std::string& address = AddressOf(post->to);
  const UcxHeader own = HeaderOf(UcxHeader::Kind::kRows, *post, ready.number);
  const bool fits = own.layer == ready.layer && own.begin == ready.begin && own.end == ready.end &&
                    own.k_bytes == ready.k_bytes && own.v_bytes == ready.v_bytes && own.dtype == ready.dtype;
  if (!fits) {
    UcxHeader refusal = own;
    refusal.kind = UcxHeader::Kind::kRefused;
    worker_.SendMessage(address, refusal);
    waiters_.Refuse(*post, Status::Failed(fmt::format(
                               "{}: one end posted {}, the other {}", NameOf(post->from, post->to),
                               Rows(own.layer, own.begin, own.end), Rows(ready.layer, ready.begin, ready.end))));
    return;
  }
  post->began = Clock::now();
  for (const int piece : {0, 1}) {
    UcxHeader header = own;
    header.piece = piece;
    Busy(address, 1);
    worker_.SendRows(address, header, {piece == 0 ? post->k : post->v, post->memory},
                     piece == 0 ? own.k_bytes : own.v_bytes,
                     [this, self = shared_from_this(), post, address](const char* error) {
                       Ended(post, address, error);
                       Busy(address, -1);
                     });
  }
}

void UcxGroupState::Ended(const std::shared_ptr<UcxPost>& post, const std::string& address, const char* error) {
  if (error != nullptr) return Lost(address, error);
  if (--post->unfinished > 0) return;
  if (post->staging != nullptr && !post->sending) {
    try {
      post->landing = post->lane->Up(post->span, post->staging);
    } catch (const Error& failure) {
      if (waiters_.Fail(Status::Failed(failure.what()))) TellFailure();
      return;
    }
  }
  waiters_.SetMoved(*post);
}

void UcxGroupState::Meet(const UcxHeader& header, std::string_view text) {
  if (header.kind == UcxHeader::Kind::kFailed) {
    (void)waiters_.Fail(Status::Failed(text.empty() ? "another process failed" : Printable(text)));
    return;
  }
  const bool sending = header.kind == UcxHeader::Kind::kReady;
  if (!IsOurs(header, sending) || !waiters_.failure().ok()) return;
  Lane& lane = LaneOf(header.from, header.to);
  const auto waiting = lane.waiting.find(header.number);
  if (sending) {
    if (waiting != lane.waiting.end()) {
      const std::shared_ptr<UcxPost> post = waiting->second;
      Match(post, header);
    } else if (header.number >= lane.posted && lane.ready.size() < kMostReady) {
      lane.ready.try_emplace(header.number, header);
    }
    return;
  }
  if (waiting == lane.waiting.end()) return;
  const std::shared_ptr<UcxPost> post = waiting->second;
  lane.waiting.erase(waiting);
  waiters_.Refuse(*post,
                  Status::Failed(fmt::format("{}: one end posted {}, the other {}", NameOf(post->from, post->to),
                                             Rows(post->span.layer, post->span.begin, post->span.end),
                                             Rows(header.layer, header.begin, header.end))));
}

UcxMemory UcxGroupState::Land(const UcxHeader& header, size_t bytes) {
  if (!IsOurs(header, /*sending=*/false) || !waiters_.failure().ok()) return {};
  Lane& lane = LaneOf(header.from, header.to);
  const auto waiting = lane.waiting.find(header.number);
  if (waiting == lane.waiting.end()) return {};
  UcxPost& post = *waiting->second;
  const auto piece = std::find(post.missing.begin(), post.missing.end(), header.piece);
  if (piece == post.missing.end()) return {};
  const size_t expected = header.piece == 0 ? post.span.k.bytes() : post.span.v.bytes();
  if (bytes != expected) {
    const Status wrong =
        Status::Failed(fmt::format("{}: {} bytes came for {} of {}", NameOf(post.from, post.to), bytes,
                                   Rows(post.span.layer, post.span.begin, post.span.end), expected));
    waiters_.Refuse(post, wrong);
    lane.waiting.erase(waiting);
    return {};
  }
  if (post.missing.size() == 2) post.began = Clock::now();
  post.missing.erase(piece);
  Busy(AddressOf(post.from), 1);
  return {header.piece == 0 ? post.k : post.v, post.memory};
}

void UcxGroupState::Landed(const UcxHeader& header, const char* error) {
  Lane& lane = LaneOf(header.from, header.to);
  const auto waiting = lane.waiting.find(header.number);
  const std::string& address = AddressOf(header.from);
  if (waiting != lane.waiting.end()) {
    const std::shared_ptr<UcxPost> post = waiting->second;
    if (post->unfinished == 1) lane.waiting.erase(waiting);
    Ended(post, address, error);
  }
  Busy(address, -1);
}

void UcxGroupState::Lost(const std::string& address, const std::string& why) {
  const bool member = std::any_of(peers_.begin(), peers_.end(),
                                  [&](const UcxPeer& peer) { return peer.linked && peer.address == address; });
  if (!member) return;
  lost_.insert(address);
  if (!waiters_.Fail(Status::Failed(fmt::format("lost {}: {}", RanksAt(peers_, address), why)))) return;
  TellFailure();
}

void UcxGroupState::TellFailure() {
  UcxHeader header;
  header.kind = UcxHeader::Kind::kFailed;
  header.group = id_;
  const std::string reason = waiters_.failure().message();
  std::set<std::string> told = lost_;
  for (size_t rank = 0; rank < peers_.size(); ++rank) {
    if (is_own_[rank] || !peers_[rank].linked || !told.insert(peers_[rank].address).second) continue;
    worker_.SendMessage(peers_[rank].address, header, reason);
  }
}

}  // namespace runahead
