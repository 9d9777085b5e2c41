#include "wire/heartbeat.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "runahead/error.h"
#include "wire/bytes.h"

namespace runahead {
namespace {

enum Type : uint16_t { kBeat = 1, kBye = 2, kLost = 3 };

/// The time that a beat may take to leave: no more than a full buffer of a stopped process deserves.
constexpr auto kSend = std::chrono::milliseconds(20);

}  // namespace

struct Heartbeat::Watched {
  HeartbeatPeer peer;
  Clock::time_point heard;
  bool open = true;  // neither lost nor gone in peace
};

Heartbeat::Heartbeat(std::vector<HeartbeatPeer> peers, OnLost on_lost, HeartbeatOptions options)
    : on_lost_(std::move(on_lost)),
      options_(options),
      added_(std::move(peers)),
      wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (!wake_) throw LinkError("no eventfd for heartbeats");
  (void)Wake();
  thread_ = std::thread([this] { Loop(); });
}

Heartbeat::~Heartbeat() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  (void)::eventfd_write(wake_.get(), 1);
  thread_.join();
  for (const auto& watched : peers_) {
    if (watched->open) (void)watched->peer.channel->Send(kBye, {}, After(kSend));
  }
}

void Heartbeat::Add(HeartbeatPeer peer) {
  {
    const std::lock_guard lock(mutex_);
    added_.push_back(std::move(peer));
  }
  (void)::eventfd_write(wake_.get(), 1);
}

bool Heartbeat::Wake() {
  eventfd_t count = 0;
  (void)::eventfd_read(wake_.get(), &count);
  const std::lock_guard lock(mutex_);
  for (HeartbeatPeer& peer : std::exchange(added_, {})) {
    std::erase(lost_, peer.rank);
    std::erase_if(peers_, [&](const auto& watched) { return watched->peer.rank == peer.rank; });
    peers_.push_back(std::make_unique<Watched>());
    peers_.back()->peer = std::move(peer);
    peers_.back()->heard = Clock::now();
  }
  return stopping_;
}

void Heartbeat::Loop() {
  while (true) {
    Beat();
    const auto next = Clock::now() + options_.every;
    while (Clock::now() < next) {
      Sleep(next);
      if (Wake()) return;
      // All that arrived while this process may have been stopped itself is heard before anyone is missed.
      for (const auto& watched : peers_) Drain(*watched);
    }
    for (const auto& watched : peers_) {
      const auto silent = Clock::now() - watched->heard;
      if (!watched->open || silent < options_.limit) continue;
      watched->open = false;
      Lose(watched->peer.rank, watched->peer.host,
           fmt::format("no sign of life for {:.1f} s", std::chrono::duration<double>(silent).count()));
    }
  }
}

void Heartbeat::Beat() {
  for (const auto& watched : peers_) {
    // What fails is noticed by silence, or by reading.
    if (watched->open) (void)watched->peer.channel->Send(kBeat, {}, After(kSend));
  }
}

void Heartbeat::Sleep(Clock::time_point until) {
  std::vector<pollfd> waits{pollfd{wake_.get(), POLLIN, 0}};
  for (const auto& watched : peers_) {
    if (watched->open) waits.push_back({watched->peer.channel->socket().fd(), POLLIN, 0});
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
  (void)::poll(waits.data(), waits.size(), static_cast<int>(std::max<int64_t>(left, 0)));
}

void Heartbeat::Drain(Watched& watched) {
  while (watched.open) {
    std::optional<WireMessage> message;
    const Status status = watched.peer.channel->Receive(message, Clock::now());
    if (!status.ok()) {
      watched.open = false;
      return Lose(watched.peer.rank, watched.peer.host, status.message());
    }
    if (!message.has_value()) return;
    watched.heard = Clock::now();
    if (message->type == kBye) watched.open = false;
    if (message->type != kLost) continue;
    ByteReader in(message->payload);
    const auto rank = in.Get<int32_t>("rank");
    const std::string host = in.GetText("host");
    const std::string why = in.GetText("why");
    if (in.End().ok()) Lose(rank, host, why);
  }
}

/// Tells the owner, and all others, once.
void Heartbeat::Lose(int rank, const std::string& host, const std::string& why) {
  if (std::find(lost_.begin(), lost_.end(), rank) != lost_.end()) return;
  lost_.push_back(rank);
  ByteWriter out;
  out.Put(static_cast<int32_t>(rank));
  out.PutText(host);
  out.PutText(why);
  for (const auto& watched : peers_) {
    if (watched->open && watched->peer.rank != rank) {
      (void)watched->peer.channel->Send(kLost, out.bytes(), After(kSend));
    }
  }
  on_lost_(rank, host, why);
}

}  // namespace runahead
