// Where a server listens and how much it takes from its clients.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace runahead::server {

struct ServerOptions {
  std::string host = "127.0.0.1";           // IP address, or "localhost"; empty: no TCP
  int port = 8080;                          // 0: any that is free
  std::string unix_socket{};                // path; empty: none
  std::string tls_certificate{};            // PEM file with the certificate and its chain, for TCP; empty: no TLS
  std::string tls_key{};                    // PEM file
  std::string api_keys{};                   // file with one key a line; empty: none is asked for
  bool insecure_open = false;               // others than this machine may come without a key
  std::vector<std::string> cors_origins{};  // pages of these origins may ask; "*": of all

  size_t max_header = size_t{32} << 10;  // bytes of a request's head
  size_t max_body = size_t{32} << 20;    // bytes of a request's body
  int max_connections = 1024;
  double header_timeout_s = 10;  // longest time from a request's first byte to the end of its head, s
  /// Longest time that a request's body takes, s; one more second for each 16 KiB that came.
  double body_timeout_s = 60;
  double idle_timeout_s = 75;   // longest time without a request, or without a client reading its answer, s
  double drain_timeout_s = 30;  // longest time that running answers get when the server ends, s
};

}  // namespace runahead::server
