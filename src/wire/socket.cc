#include "wire/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <system_error>
#include <vector>

#include "runahead/error.h"

namespace runahead {
namespace {

std::string Reason(int error) { return std::generic_category().message(error); }

/// Whether `events` came before the deadline.
bool Await(int fd, short events, Deadline deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd waits{fd, events, 0};
    const int met = ::poll(&waits, 1, static_cast<int>(std::clamp<int64_t>(left, 0, 60'000)));
    if (met > 0) return true;
    if (met < 0 && errno != EINTR) return true;  // the call that follows says what is wrong
    if (left <= 0) return false;
  }
}

/// A socket address in all of its families.
struct Target {
  sockaddr_storage storage{};
  socklen_t bytes = 0;
  int family = AF_UNSPEC;
};

/// The addresses of `address`. Throws LinkError where its host is unknown.
std::vector<Target> TargetsOf(const WireAddress& address, bool to_listen) {
  if (address.is_unix) {
    Target target;
    auto& place = reinterpret_cast<sockaddr_un&>(target.storage);
    if (address.host.size() >= sizeof place.sun_path) {
      throw LinkError(fmt::format("{}: the path is longer than {} bytes", address.text(), sizeof place.sun_path - 1));
    }
    place.sun_family = AF_UNIX;
    std::memcpy(place.sun_path, address.host.data(), address.host.size());
    target.bytes = sizeof place;
    target.family = AF_UNIX;
    return {target};
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (to_listen ? AI_PASSIVE : 0);
  addrinfo* found = nullptr;
  const int wrong = ::getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(),
                                  std::to_string(address.port).c_str(), &hints, &found);
  if (wrong != 0) throw LinkError(fmt::format("{}: {}", address.text(), ::gai_strerror(wrong)));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owned(found, &::freeaddrinfo);
  std::vector<Target> targets;
  for (const addrinfo* info = found; info != nullptr; info = info->ai_next) {
    Target target;
    std::memcpy(&target.storage, info->ai_addr, info->ai_addrlen);
    target.bytes = info->ai_addrlen;
    target.family = info->ai_family;
    targets.push_back(target);
  }
  return targets;
}

Descriptor NewSocket(int family) {
  Descriptor socket(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) throw LinkError(fmt::format("no socket: {}", Reason(errno)));
  return socket;
}

void SendAtOnce(int fd) {
  const int on = 1;
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/// 0, or why there is no connection. ETIMEDOUT at the deadline.
int TryConnect(const Target& target, Deadline deadline, Descriptor& connected) {
  Descriptor socket = NewSocket(target.family);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&target.storage), target.bytes) != 0) {
    if (errno != EINPROGRESS) return errno;
    if (!Await(socket.get(), POLLOUT, deadline)) return ETIMEDOUT;
    int error = 0;
    socklen_t bytes = sizeof error;
    (void)::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &bytes);
    if (error != 0) return error;
  }
  if (target.family != AF_UNIX) SendAtOnce(socket.get());
  connected = std::move(socket);
  return 0;
}

std::string NameOf(const sockaddr_storage& storage) {
  std::array<char, NI_MAXHOST> host{};
  if (storage.ss_family == AF_UNIX) return "this host";
  const socklen_t bytes = storage.ss_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  const int wrong = ::getnameinfo(reinterpret_cast<const sockaddr*>(&storage), bytes, host.data(), host.size(),
                                  nullptr, 0, NI_NUMERICHOST);
  return wrong == 0 ? host.data() : "an unknown address";
}

bool IsLoopback(const sockaddr_storage& storage) {
  if (storage.ss_family == AF_UNIX) return true;
  if (storage.ss_family == AF_INET) {
    return (ntohl(reinterpret_cast<const sockaddr_in&>(storage).sin_addr.s_addr) >> 24) == 127;
  }
  if (storage.ss_family != AF_INET6) return false;
  const in6_addr& address = reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr;
  if (IN6_IS_ADDR_LOOPBACK(&address)) return true;
  return IN6_IS_ADDR_V4MAPPED(&address) && address.s6_addr[12] == 127;
}

}  // namespace

WireAddress WireAddress::Parse(std::string_view text) {
  WireAddress address;
  if (text.starts_with("unix:") && text.size() > 5) {
    address.host = text.substr(5);
    address.is_unix = true;
    return address;
  }
  const size_t colon = text.rfind(':');
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const std::string_view port = colon == std::string_view::npos ? "" : text.substr(colon + 1);
  const auto [end, wrong] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (host.empty() || port.empty() || wrong != std::errc() || end != port.data() + port.size()) {
    throw ConfigError(fmt::format("'{}' is no address: host:port or unix:/path", text));
  }
  address.host = host;
  return address;
}

std::string WireAddress::text() const {
  if (is_unix) return "unix:" + host;
  const bool bare = host.find(':') == std::string::npos;
  return fmt::format("{}{}{}:{}", bare ? "" : "[", host, bare ? "" : "]", port);
}

Socket Socket::Connect(const WireAddress& address, Deadline deadline) {
  constexpr auto kAgain = std::chrono::milliseconds(50);
  while (true) {
    int error = ECONNREFUSED;
    for (const Target& target : TargetsOf(address, /*to_listen=*/false)) {
      Descriptor connected;
      error = TryConnect(target, deadline, connected);
      if (error == 0) return Socket(std::move(connected));
    }
    const bool later = error == ECONNREFUSED || error == ENOENT || error == EHOSTUNREACH || error == ENETUNREACH ||
                       error == ECONNRESET || error == EAGAIN;
    if (!later || Clock::now() + kAgain >= deadline) {
      throw LinkError(fmt::format("no connection to {}: {}", address.text(), Reason(error)));
    }
    (void)::poll(nullptr, 0, static_cast<int>(kAgain.count()));
  }
}

Status Socket::ReadSome(std::span<char> buffer, Deadline deadline, size_t& got) {
  got = 0;
  while (true) {
    const ssize_t read = ::recv(fd(), buffer.data(), buffer.size(), 0);
    if (read > 0) {
      got = static_cast<size_t>(read);
      return Status::Ok();
    }
    // A reset is the same where something was on its way to the other side.
    if (read == 0 || errno == ECONNRESET) return Status::Failed("it closed the connection");
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return Status::Failed(Reason(errno));
    if (!Await(fd(), POLLIN, deadline)) return Status::Ok();
  }
}

Status Socket::WriteAll(std::string_view bytes, Deadline deadline) {
  while (!bytes.empty()) {
    const ssize_t written = ::send(fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (written >= 0) {
      bytes.remove_prefix(static_cast<size_t>(written));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!Await(fd(), POLLOUT, deadline)) return Status::Failed("it took no message before the deadline");
    } else if (errno != EINTR) {
      return Status::Failed(Reason(errno));
    }
  }
  return Status::Ok();
}

void Socket::Shut() {
  if (descriptor_) (void)::shutdown(fd(), SHUT_RDWR);
}

bool Socket::is_local() const {
  sockaddr_storage storage{};
  socklen_t bytes = sizeof storage;
  return ::getpeername(fd(), reinterpret_cast<sockaddr*>(&storage), &bytes) == 0 && IsLoopback(storage);
}

std::string Socket::peer() const {
  sockaddr_storage storage{};
  socklen_t bytes = sizeof storage;
  (void)::getpeername(fd(), reinterpret_cast<sockaddr*>(&storage), &bytes);
  return NameOf(storage);
}

std::string Socket::local() const {
  sockaddr_storage storage{};
  socklen_t bytes = sizeof storage;
  (void)::getsockname(fd(), reinterpret_cast<sockaddr*>(&storage), &bytes);
  return NameOf(storage);
}

SocketListener::SocketListener(const WireAddress& address) : address_(address) {
  constexpr int kBacklog = 128;
  int error = EADDRNOTAVAIL;
  for (const Target& target : TargetsOf(address, /*to_listen=*/true)) {
    Descriptor socket = NewSocket(target.family);
    const int on = 1;
    (void)::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&target.storage), target.bytes) != 0 ||
        ::listen(socket.get(), kBacklog) != 0) {
      error = errno;
      continue;
    }
    sockaddr_storage bound{};
    socklen_t bytes = sizeof bound;
    (void)::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound), &bytes);
    if (bound.ss_family == AF_INET) address_.port = ntohs(reinterpret_cast<const sockaddr_in&>(bound).sin_port);
    if (bound.ss_family == AF_INET6) address_.port = ntohs(reinterpret_cast<const sockaddr_in6&>(bound).sin6_port);
    descriptor_ = std::move(socket);
    return;
  }
  throw LinkError(fmt::format("cannot listen at {}: {}", address.text(), Reason(error)));
}

SocketListener::~SocketListener() {
  if (descriptor_ && address_.is_unix) (void)::unlink(address_.host.c_str());
}

std::optional<Socket> SocketListener::Accept(Deadline deadline) {
  while (true) {
    Descriptor socket(::accept4(fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket) {
      if (!address_.is_unix) SendAtOnce(socket.get());
      return Socket(std::move(socket));
    }
    const bool full = errno == EMFILE || errno == ENFILE;  // a stranger may have taken all: try again, not too often
    if (full) (void)::poll(nullptr, 0, 10);
    if (!Await(fd(), POLLIN, deadline) || (full && Clock::now() >= deadline)) return std::nullopt;
  }
}

}  // namespace runahead
