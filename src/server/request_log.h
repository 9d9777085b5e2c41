// One line on stderr for each request, and for what happens to the server.
#pragma once

#include <cstdint>
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

/// Thread-safe. Says nothing of what was asked or answered.
class RequestLog {
 public:
  enum class Form : unsigned char { kText, kJson, kNone };
  explicit RequestLog(Form form) : form_(form) {}

  void Write(const RequestRecord& record) const;
  /// Something that an operator should know.
  void Note(std::string_view message) const;

 private:
  Form form_;
};

}  // namespace runahead::server
