#include "engine/request_state.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "engine/conductor.h"
#include "engine/engine_state.h"
#include "runahead/error.h"
#include "worker/sampler.h"

namespace runahead {

void EventQueue::Push(RequestEvent event) {
  {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
  }
  changed_.notify_all();
}

std::optional<RequestEvent> EventQueue::Next(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  if (left_ == 0) throw ConfigError("request: Next was called behind the end");
  if (!changed_.wait_for(lock, patience, [this] { return !events_.empty(); })) return std::nullopt;
  RequestEvent event = std::move(events_.front());
  events_.pop_front();
  left_ -= event.kind == RequestEvent::Kind::kEnd ? 1 : 0;
  return event;
}

void CheckRequest(const Request& request, const Tokenizer* tokenizer, int64_t vocab) {
  CheckOptions(request.generation, tokenizer, static_cast<size_t>(vocab));
  (void)Sampler(request.generation.sampling);
  if (request.prompt.empty()) throw ConfigError("prompt: it has no tokens");
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    if (request.prompt[i] >= 0 && request.prompt[i] < vocab) continue;
    throw ConfigError(fmt::format("prompt: token id {} at position {} is outside the vocabulary of {}",
                                  request.prompt[i], i, vocab));
  }
  for (const auto& [id, added] : request.logit_bias) {
    if (id < 0 || id >= vocab) {
      throw ConfigError(fmt::format("logit bias: token id {} is outside the vocabulary of {}", id, vocab));
    }
    if (!std::isfinite(added)) throw ConfigError(fmt::format("logit bias: of token id {} it is {}", id, added));
  }
  if (request.logprobs < -1 || request.logprobs > vocab) {
    throw ConfigError(fmt::format("logprobs: expected -1 to {}, got {}", vocab, request.logprobs));
  }
  if (request.priority == std::numeric_limits<int>::lowest()) {  // it has no opposite
    throw ConfigError(fmt::format("priority: expected {} or more, got {}", request.priority + 1, request.priority));
  }
  if (request.choices < 1 || request.choices > Request::kMostChoices) {
    throw ConfigError(fmt::format("choices: expected 1 to {}, got {}", Request::kMostChoices, request.choices));
  }
  if (!(request.ttft_deadline_s >= 0)) {
    throw ConfigError(fmt::format("deadline: expected 0 s or more, got {}", request.ttft_deadline_s));
  }
}

void RequestState::Cancel() { engine_->conductor().Cancel(admission_.id, choices_); }

EventListener::EventListener(std::shared_ptr<EventSink> sink, int choice, std::shared_ptr<const Tokenizer> tokenizer,
                             const GenerationOptions& options)
    : sink_(std::move(sink)),
      choice_(choice),
      tokenizer_(std::move(tokenizer)),
      text_(tokenizer_.get(), options, [this](std::string_view piece) { piece_ += piece; }) {}

void EventListener::Send(RequestEvent event) {
  if (!*sink_) return;
  try {
    (*sink_)(std::move(event));
  } catch (...) {  // nobody listens any more
    *sink_ = nullptr;
  }
}

RequestEvent EventListener::New(RequestEvent::Kind kind) const {
  RequestEvent event;
  event.kind = kind;
  event.choice = choice_;
  return event;
}

void EventListener::OnProgress(const PromptProgress& progress) {
  if (tokens_ > 0 || choice_ > 0) return;  // its answer goes on behind rows that are computed again
  RequestEvent event = New(RequestEvent::Kind::kProgress);
  event.prompt_done = progress.done;
  event.prompt_total = progress.total;
  event.cached_tokens = progress.cached;
  event.predicted_left_ms = progress.left_s * 1e3;
  event.members = progress.members;
  Send(std::move(event));
}

std::optional<FinishReason> EventListener::OnToken(const Drawn& drawn) {
  if (const std::optional<FinishReason> finish = text_.EndsBefore(drawn.token.id)) return finish;
  ++tokens_;
  const bool cut = text_.Add(drawn.token.id);
  RequestEvent event = New(RequestEvent::Kind::kToken);
  event.token = drawn.token;
  event.likely = drawn.likely;
  event.text = std::exchange(piece_, {});
  Send(std::move(event));
  if (!*sink_) return FinishReason::kCancelled;
  return cut ? std::optional(FinishReason::kStop) : std::nullopt;
}

void EventListener::OnEnd(FinishReason finish, const std::string& error, const RequestStats& stats) {
  RequestEvent event = New(RequestEvent::Kind::kEnd);
  event.finish = finish;
  const bool whole = finish == FinishReason::kLength || finish == FinishReason::kEndOfSequence;
  if (whole && text_.End()) event.finish = FinishReason::kStop;
  event.text = std::exchange(piece_, {});
  event.error = error;
  event.stats = stats;
  event.stats.new_tokens = tokens_;
  Send(std::move(event));
}

RequestHandle::RequestHandle(std::shared_ptr<RequestState> state) : state_(std::move(state)) {}
RequestHandle::RequestHandle(RequestHandle&&) noexcept = default;
RequestHandle& RequestHandle::operator=(RequestHandle&& other) noexcept {
  if (this != &other) {
    if (state_ != nullptr) state_->Cancel();
    state_ = std::move(other.state_);
  }
  return *this;
}
RequestHandle::~RequestHandle() {
  if (state_ != nullptr) state_->Cancel();
}

std::optional<RequestEvent> RequestHandle::Next(std::chrono::milliseconds patience) {
  if (state_ == nullptr) throw ConfigError("request: its handle was moved from");
  if (state_->events() == nullptr) throw ConfigError("request: its events go to a sink");
  return state_->events()->Next(patience);
}

void RequestHandle::Cancel() {
  if (state_ == nullptr) throw ConfigError("request: its handle was moved from");
  state_->Cancel();
}

double RequestHandle::predicted_ttft_ms() const {
  if (state_ == nullptr) throw ConfigError("request: its handle was moved from");
  return state_->predicted_ttft_ms();
}

}  // namespace runahead
