// Messages between two processes that have proved to each other that they know the group's secret.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/deadline.h"
#include "base/status.h"
#include "wire/secret.h"
#include "wire/socket.h"

namespace runahead {

/// What a message is about, and what it says.
struct WireMessage {
  uint16_t type = 0;
  std::string payload;
};

/// A connection whose messages arrive whole, in order, once, and from the other side alone: each has a number and an
/// HMAC-SHA256 under a key of this connection and direction. Whatever else arrives ends it. Nothing is encrypted. One
/// thread may send while another receives.
class Channel {
 public:
  /// Proves both sides' secret to each other: each answers a nonce of the other's. Nothing else of the other side's
  /// is read before, and of 40 and 32 bytes only. Throws LinkError when it fails, or at the deadline; ConfigError
  /// when `secret` is empty and the other side is not certainly on this host. The side that connected says so.
  static std::unique_ptr<Channel> Open(Socket socket, bool connected, std::string_view secret, Deadline deadline);

  /// Most bytes of a payload.
  static constexpr size_t kMostBytes = 64 << 20;

  /// Fails for ever once it failed.
  Status Send(uint16_t type, std::string_view payload, Deadline deadline);
  /// The next message, or nothing when none is there by the deadline. Fails for ever once it failed.
  Status Receive(std::optional<WireMessage>& message, Deadline deadline);
  /// Receive, where nothing is a failure too.
  Status Await(WireMessage& message, Deadline deadline);
  /// Wakes both threads: they fail.
  void Shut() { socket_.Shut(); }

  [[nodiscard]] const Socket& socket() const { return socket_; }

 private:
  Channel(Socket socket, std::string_view secret, std::string_view nonces, bool connected);

  /// Takes a whole message from input_, if it holds one.
  Status Take(std::optional<WireMessage>& message);

  Socket socket_;
  Mac send_key_;
  Mac receive_key_;

  std::mutex sending_;
  uint64_t sent_ = 0;   // messages, guarded by sending_
  Status send_failed_;  // guarded by sending_

  // For the thread that receives:
  uint64_t received_ = 0;  // messages
  std::string input_;      // bytes of messages that are not whole yet
  Status receive_failed_;
};

}  // namespace runahead
