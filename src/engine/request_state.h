// What a request's handle and the engine share.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "engine/answer_text.h"
#include "runahead/request.h"
#include "schedule/scheduler.h"

namespace runahead {

class EngineState;

/// The events of one request, on their way to its handle. Thread-safe.
class EventQueue {
 public:
  explicit EventQueue(int choices) : left_(choices) {}
  void Push(RequestEvent event);
  /// See RequestHandle::Next.
  [[nodiscard]] std::optional<RequestEvent> Next(std::chrono::milliseconds patience);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<RequestEvent> events_;  // guarded by mutex_
  int left_;                         // choices whose kEnd was not taken, guarded by mutex_
};

/// What a RequestHandle holds.
class RequestState {
 public:
  /// `events`: null where they go to a sink.
  RequestState(std::shared_ptr<EngineState> engine, std::shared_ptr<EventQueue> events, const Admission& admission,
               int choices)
      : engine_(std::move(engine)), events_(std::move(events)), admission_(admission), choices_(choices) {}
  [[nodiscard]] EventQueue* events() { return events_.get(); }
  [[nodiscard]] double predicted_ttft_ms() const { return admission_.predicted_ttft_s * 1e3; }
  void Cancel();

 private:
  std::shared_ptr<EngineState> engine_;
  std::shared_ptr<EventQueue> events_;
  Admission admission_;
  int choices_;
};

/// Throws ConfigError for a request that asks for what is out of range. `tokenizer` may be null.
void CheckRequest(const Request& request, const Tokenizer* tokenizer, int64_t vocab);

/// Turns what the scheduler tells of one choice into events, with text where there is a tokenizer.
class EventListener final : public Listener {
 public:
  /// `sink`: of all choices; emptied when it throws.
  EventListener(std::shared_ptr<EventSink> sink, int choice, std::shared_ptr<const Tokenizer> tokenizer,
                const GenerationOptions& options);

  void OnProgress(const PromptProgress& progress) override;
  std::optional<FinishReason> OnToken(const Drawn& drawn) override;
  void OnEnd(FinishReason finish, const std::string& error, const RequestStats& stats) override;

 private:
  void Send(RequestEvent event);

  [[nodiscard]] RequestEvent New(RequestEvent::Kind kind) const;

  std::shared_ptr<EventSink> sink_;
  int choice_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::string piece_;  // text that became final since the last event
  AnswerText text_;
  int64_t tokens_ = 0;
};

}  // namespace runahead
