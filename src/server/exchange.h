// One answer on its way to a connection: what is written turns into the bytes of HTTP.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "protocol/http_call.h"
#include "server/http_text.h"

namespace runahead::server {

/// What an answer must look like for its request and its connection.
struct AnswerForm {
  bool head_only = false;                   // HEAD
  bool http_1_0 = false;                    // no chunks: the connection's end is the body's end
  bool keep_alive = true;                   // the client would go on with the connection
  std::vector<protocol::HttpField> fields;  // of every answer
};

/// Takes an answer from any thread, keeps what was not sent yet, and tells its connection when there is more.
class Exchange final : public protocol::HttpAnswer {
 public:
  /// `wake` is called when there are bytes or an end to Take, from whichever thread brought them, and not again until
  /// Take. `draining` is asked when the head is written: then the connection ends behind this answer.
  Exchange(AnswerForm form, std::function<bool()> draining, std::function<void()> wake);

  void Send(protocol::HttpHead head, std::string body) override;
  void Begin(protocol::HttpHead head) override;
  void Write(std::string bytes) override;
  void End() override;
  void Break() override;
  void Note(const protocol::AnswerFacts& facts) override;

  /// Ends the answer with an error: a whole one when nothing was said yet, else an event in a stream of events, which
  /// is then broken off. Does nothing when the answer has ended.
  void Fail(const Refusal& refusal);

  struct Bytes {
    std::string text;
    bool ended = false;       // nothing comes behind them
    bool keep_alive = false;  // once ended: the connection goes on
    bool cut = false;         // once ended: it is not whole, and nothing in HTTP says so
  };
  /// What is to be sent now.
  Bytes Take();

  /// Nobody reads the answer any more: it is dropped.
  void Leave();
  [[nodiscard]] bool left() const;

  struct Facts {
    int status = 0;           // 0: none yet
    uint64_t body_bytes = 0;  // that were written
    bool broken = false;      // ended before its end
    std::optional<protocol::AnswerFacts> tokens;
  };
  [[nodiscard]] Facts facts() const;

 private:
  void WriteHead(protocol::HttpHead head, const std::string* body);
  void Wake(std::unique_lock<std::mutex> lock);

  const AnswerForm form_;
  const std::function<bool()> draining_;
  const std::function<void()> wake_;
  mutable std::mutex mutex_;  // guards all below
  std::string pending_;
  bool chunked_ = false;
  bool events_ = false;  // a stream of server-sent events
  bool bodyless_ = false;
  bool ended_ = false;
  bool broken_ = false;
  bool left_ = false;
  bool woken_ = false;
  bool keep_alive_ = false;
  int status_ = 0;
  uint64_t body_bytes_ = 0;
  std::optional<protocol::AnswerFacts> tokens_;
};

}  // namespace runahead::server
