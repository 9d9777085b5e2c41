// Sockets that wait for connections.
#pragma once

#include <string>
#include <vector>

#include "server/asio.h"

namespace runahead::server {

using Acceptor = asio::basic_socket_acceptor<asio::generic::stream_protocol, asio::io_context::executor_type>;

/// One open socket; its file, if it has one, goes with it.
struct Listener {
  Acceptor acceptor;
  bool local = false;   // a unix socket
  std::string address;  // "http://127.0.0.1:8080"
  std::string path;     // of a unix socket

  Listener(Acceptor open, bool is_local, std::string where, std::string file)
      : acceptor(std::move(open)), local(is_local), address(std::move(where)), path(std::move(file)) {}
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener();

  /// Lets clients in. Throws IoError.
  void Listen();
};

// Each takes an address and lets nobody in yet. Throws ConfigError for an address that is none, IoError for one that
// cannot be had, naming flag and value.
std::unique_ptr<Listener> BindTcp(asio::io_context& context, const std::string& host, int port, bool tls);
/// A file that a server left behind when it died is replaced, any other is not.
std::unique_ptr<Listener> BindUnix(asio::io_context& context, const std::string& path);

}  // namespace runahead::server
