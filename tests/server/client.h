// A plain client with sockets of its own, and a server with something behind it, for tests.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/descriptor.h"
#include "protocol/http_call.h"
#include "server/server.h"

namespace runahead::server {

/// An answer as a client sees it.
struct Answered {
  int status = 0;                             // 0: the connection ended before one
  std::map<std::string, std::string> fields;  // lower-case names
  std::string body;                           // without its framing
  bool whole = false;                         // its length was as it was said
};

/// One connection. Every wait ends after ten seconds, with what there is.
class Client {
 public:
  /// To an address of Server::addresses().
  explicit Client(const std::string& address);

  void Send(std::string_view bytes) const;
  /// The next answer, also of a request that was sent with HEAD.
  Answered Read(bool head_only = false);
  /// All until the connection ends; `ended` says whether it did.
  std::string ReadToEnd();
  /// Up to and with `text`; less when the connection ends before.
  std::string ReadUntil(std::string_view text);
  [[nodiscard]] bool ended() const { return ended_; }
  void Close() { socket_.Close(); }

 private:
  bool ReadMore();

  Descriptor socket_;
  std::string input_;
  bool ended_ = false;
};

/// "GET /path HTTP/1.1" with a host and these lines.
std::string Get(const std::string& path, const std::string& lines = "");
std::string Post(const std::string& path, const std::string& body, const std::string& lines = "");

/// What stands behind a server under test. POST /tokenize gives the body back, GET /v1/models a name; an answer of
/// POST /v1/completions is left to the test.
class TestService {
 public:
  struct Running {
    protocol::HttpRequest request;
    std::shared_ptr<protocol::HttpAnswer> answer;
  };

  Service Make();
  /// The next request to /v1/completions; null after ten seconds.
  std::shared_ptr<Running> Next();
  /// Whether so many calls were destroyed, waited for.
  bool Destroyed(int calls);
  void Fail(const std::string& failure);

 private:
  class Call;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Running>> running_;
  int destroyed_ = 0;
  std::string failure_;
};

/// A server on a free port that runs until it is destroyed.
class RunningServer {
 public:
  explicit RunningServer(TestService& service, ServerOptions options = {});
  ~RunningServer();

  [[nodiscard]] const std::string& address(size_t i = 0) const { return server_.addresses().at(i); }
  Server& server() { return server_; }
  /// Whether Run returned, waited for, and with what.
  std::optional<Server::Outcome> Ended();
  /// Records so far, when there are so many; waited for.
  std::vector<RequestRecord> Records(size_t count);

 private:
  ServerHooks Hooks();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<RequestRecord> records_;
  std::optional<Server::Outcome> outcome_;
  Server server_;
  std::jthread thread_;
};

}  // namespace runahead::server
