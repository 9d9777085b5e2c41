// The HTTP server: listens, keeps its connections within limits, drains.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/request_log.h"
#include "server/server_options.h"
#include "server/site.h"

namespace runahead::server {

/// What a server tells while it runs, from any of its threads. Each may be empty and must be brief.
struct ServerHooks {
  std::function<void(const RequestRecord&)> answered;
  std::function<void(int)> connections;          // how many are open now
  std::function<void(const std::string&)> note;  // something that an operator should know
};

/// Has its addresses from its construction on, lets clients in from Listen on, and serves while Run runs. Drain, Stop
/// and Reload from any thread.
class Server {
 public:
  /// Throws ConfigError for options that cannot be, IoError when an address cannot be had.
  Server(ServerOptions options, Service service, ServerHooks hooks = {});
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Where it listens: "http://127.0.0.1:8080", "unix:/run/runahead.sock".
  [[nodiscard]] const std::vector<std::string>& addresses() const;

  /// Before Run. Throws IoError.
  void Listen();

  enum class Outcome : unsigned char { kDrained, kCut };
  /// Serves until it is drained, or was stopped: kCut when answers were cut for that. Called once.
  Outcome Run();

  /// SIGTERM and SIGINT will drain, the second of them stop; SIGHUP reloads. Before Run.
  void ListenToSignals();

  /// Accepts nobody any more, completes what runs, and ends; what still runs after the drain timeout is cut.
  void Drain();
  /// Ends at once: every answer that is under way ends with an error.
  void Stop();
  /// Reads keys and certificate again; a file that is wrong is noted and changes nothing.
  void Reload();

 private:
  class Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace runahead::server
