// Connections that never wait longer than told.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/deadline.h"
#include "base/descriptor.h"
#include "base/status.h"

namespace runahead {

/// "host:port", "[::1]:port" or "unix:/path".
struct WireAddress {
  std::string host;  // or the socket's path
  uint16_t port = 0;
  bool is_unix = false;

  /// Throws ConfigError naming `text`.
  static WireAddress Parse(std::string_view text);
  [[nodiscard]] std::string text() const;
};

/// A connected stream. One thread may write while another reads.
class Socket {
 public:
  Socket() = default;
  explicit Socket(Descriptor descriptor) : descriptor_(std::move(descriptor)) {}

  /// Connects, trying again until the deadline where nobody listens yet. Throws LinkError.
  static Socket Connect(const WireAddress& address, Deadline deadline);

  [[nodiscard]] int fd() const { return descriptor_.get(); }
  /// Bytes that are there, at most `buffer`; 0: none before the deadline. A failure says that the other side is gone.
  Status ReadSome(std::span<char> buffer, Deadline deadline, size_t& got);
  /// Fails where not all of it was taken before the deadline: the connection is of no use then.
  Status WriteAll(std::string_view bytes, Deadline deadline);
  /// Wakes whoever reads or writes.
  void Shut();
  /// Whether the other side is on this host for certain: a unix socket or a loopback address.
  [[nodiscard]] bool is_local() const;
  [[nodiscard]] std::string peer() const;   // address of the other side, without its port
  [[nodiscard]] std::string local() const;  // address of this side, without its port

 private:
  Descriptor descriptor_;
};

/// Accepts connections.
class SocketListener {
 public:
  /// Port 0: any free one. Throws LinkError naming the address.
  explicit SocketListener(const WireAddress& address);
  ~SocketListener();
  SocketListener(SocketListener&&) = default;
  SocketListener(const SocketListener&) = delete;
  SocketListener& operator=(const SocketListener&) = delete;

  [[nodiscard]] const WireAddress& address() const { return address_; }
  [[nodiscard]] int fd() const { return descriptor_.get(); }
  /// Nothing: nobody came before the deadline.
  std::optional<Socket> Accept(Deadline deadline);

 private:
  WireAddress address_;
  Descriptor descriptor_;
};

}  // namespace runahead
