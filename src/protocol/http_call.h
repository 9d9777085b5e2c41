// An HTTP request and its answer as values, so that what a server says can be tested without sockets.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace runahead::protocol {

struct HttpField {
  std::string name;  // lower case
  std::string value;
};

struct HttpRequest {
  std::string method;  // "GET"
  std::string target;  // path and query as they were sent: "/v1/models?x=1"
  std::vector<HttpField> fields;
  std::string body;

  /// The value of the first field of that name; empty: there is none.
  [[nodiscard]] std::string_view Field(std::string_view name) const {
    for (const HttpField& field : fields) {
      if (field.name == name) return field.value;
    }
    return {};
  }
};

/// What comes before a body. Its length, its framing and the connection's fields are the sender's to add.
struct HttpHead {
  int status = 200;
  std::vector<HttpField> fields;
};

/// What an answer took, for logs.
struct AnswerFacts {
  int64_t prompt_tokens = 0;  // of all its choices
  int64_t cached_tokens = 0;
  int64_t new_tokens = 0;
  double ttft_ms = 0;  // of its first choice
};

/// Where an answer goes: either Send, or Begin, any number of Write, and End or Break. Thread-safe, never blocks;
/// what comes for a client that has left is dropped.
class HttpAnswer {
 public:
  virtual ~HttpAnswer() = default;
  /// A whole answer.
  virtual void Send(HttpHead head, std::string body) = 0;
  /// The beginning of one that is sent as it becomes known.
  virtual void Begin(HttpHead head) = 0;
  virtual void Write(std::string bytes) = 0;
  virtual void End() = 0;
  /// The answer ends here, and the client shall see that it is not whole.
  virtual void Break() = 0;
  /// Told before its end, where tokens were asked for.
  virtual void Note(const AnswerFacts& /*facts*/) {}
};

/// What runs for a request. Destroyed when its answer was sent, or when nobody waits for that any more: then what
/// runs is cancelled.
class HttpCall {
 public:
  virtual ~HttpCall() = default;
};

}  // namespace runahead::protocol
