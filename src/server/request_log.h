// One line on stderr for each request, and for what happens to the server.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "protocol/http_call.h"

namespace runahead::server {

/// A request that was answered, or whose client left.
struct RequestRecord {
  std::string id;      // x-request-id
  std::string method;  // "POST"
  std::string route;   // "/v1/completions"; "other" for what is not served
  int status = 0;      // 0: the client left before there was one
  uint64_t body_bytes = 0;
  double ms = 0;                                // from the request's head to the last byte of its answer
  bool whole = true;                            // the client got all of it
  std::string trace;                            // the client's traceparent; empty: none
  std::optional<protocol::AnswerFacts> tokens;  // nothing: it was about none
};

/// Thread-safe. Says nothing of what was asked or answered. Never waits: what finds a pipe full is lost, and the next
/// line that goes through says how many were.
class RequestLog {
 public:
  enum class Form : unsigned char { kText, kJson, kNone };
  /// Writes to `descriptor`, which it does not own.
  RequestLog(Form form, int descriptor) : form_(form), descriptor_(descriptor) {}

  void Write(const RequestRecord& record);
  /// Something that an operator should know.
  void Note(std::string_view message);

 private:
  [[nodiscard]] std::string NoteLine(std::string_view message) const;
  void Put(std::string line);

  Form form_;
  int descriptor_;
  std::mutex mutex_;
  int64_t lost_ = 0;  // lines since the last that was written; guarded by mutex_
};

}  // namespace runahead::server
