#include "server/listener.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <system_error>

#include "runahead/error.h"

namespace runahead::server {
namespace {

/// Has the address, and lets nobody in yet. Throws IoError "<what>: <reason>".
Acceptor Bind(asio::io_context& context, const asio::generic::stream_protocol::endpoint& endpoint,
              const std::string& what) {
  Acceptor acceptor(context.get_executor());
  ErrorCode error;
  const auto check = [&] {
    if (error) throw IoError(fmt::format("{}: {}", what, error.message()));
  };
  const asio::generic::stream_protocol protocol(endpoint.protocol().family(),
                                                endpoint.protocol().family() == AF_UNIX ? 0 : IPPROTO_TCP);
  acceptor.open(protocol, error);
  check();
  if (protocol.family() != AF_UNIX) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  check();
  acceptor.bind(endpoint, error);
  check();
  acceptor.non_blocking(true, error);
  check();
  return acceptor;
}

/// Whether a socket's file is there and nobody listens behind it.
bool IsLeftBehind(asio::io_context& context, const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) return false;
  asio::local::stream_protocol::socket socket(context);
  ErrorCode error;
  socket.connect(asio::local::stream_protocol::endpoint(path), error);
  return error == asio::error::connection_refused;
}

}  // namespace

void Listener::Listen() {
  ErrorCode error;
  acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) throw IoError(fmt::format("cannot listen on {}: {}", address, error.message()));
}

Listener::~Listener() {
  if (!path.empty()) ::unlink(path.c_str());
}

std::unique_ptr<Listener> BindTcp(asio::io_context& context, const std::string& host, int port, bool tls) {
  ErrorCode error;
  const auto address = asio::ip::make_address(host == "localhost" ? "127.0.0.1" : host, error);
  if (error) throw ConfigError(fmt::format("--host: expected an IP address or localhost, got '{}'", host));
  const asio::ip::tcp::endpoint endpoint(address, static_cast<uint16_t>(port));
  const std::string name = address.is_v6() ? fmt::format("[{}]", host) : host;
  Acceptor acceptor = Bind(context, endpoint, fmt::format("--host and --port: cannot listen on {}:{}", name, port));
  // Of the port that the system chose.
  asio::generic::stream_protocol::endpoint bound = acceptor.local_endpoint();
  asio::ip::tcp::endpoint place;
  std::memcpy(place.data(), bound.data(), std::min(bound.size(), place.capacity()));
  std::string where = fmt::format("{}://{}:{}", tls ? "https" : "http", name, place.port());
  return std::make_unique<Listener>(std::move(acceptor), /*is_local=*/false, std::move(where), "");
}

std::unique_ptr<Listener> BindUnix(asio::io_context& context, const std::string& path) {
  constexpr size_t kLongest = 107;  // bytes that an address of the system has
  constexpr mode_t kOwnerAndGroup = S_IRUSR | S_IWUSR | S_IRGRP | S_IWGRP;
  if (path.size() > kLongest) {
    throw ConfigError(fmt::format("--unix-socket: expected a path of at most {} bytes, got '{}'", kLongest, path));
  }
  if (IsLeftBehind(context, path)) ::unlink(path.c_str());
  Acceptor acceptor = Bind(context, asio::local::stream_protocol::endpoint(path),
                           fmt::format("--unix-socket: cannot listen on {}", path));
  auto listener = std::make_unique<Listener>(std::move(acceptor), /*is_local=*/true, "unix:" + path, path);
  if (::chmod(path.c_str(), kOwnerAndGroup) != 0) {
    throw IoError(fmt::format("--unix-socket: {}: {}", path, std::generic_category().message(errno)));
  }
  return listener;
}

}  // namespace runahead::server
