#include "protocol/answer_run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <exception>

#include "protocol/api_error.h"
#include "protocol/http_status.h"
#include "protocol/http_text.h"
#include "protocol/json_text.h"
#include "protocol/random_id.h"

namespace runahead::protocol {
namespace {

double MsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

bool Failed(const RequestEvent& event) {
  return event.kind == RequestEvent::Kind::kEnd &&
         (event.finish == FinishReason::kError || event.finish == FinishReason::kCancelled);
}

ApiError ErrorOf(const RequestEvent& event) {
  if (event.finish == FinishReason::kCancelled) return {kUnavailable, "the request was cancelled", "cancelled"};
  return {kInternalError, event.error, "engine_error"};
}

}  // namespace

AnswerRun::AnswerRun(std::shared_ptr<Service> service, const Asked& asked, std::shared_ptr<HttpAnswer> answer)
    : service_(std::move(service)),
      id_(RandomId(asked.chat ? "chatcmpl-" : "cmpl-")),
      form_({asked.chat, id_, UnixSeconds(), service_->model(), service_->fingerprint()}),
      stream_(asked.stream),
      logprobs_(asked.fields.request.logprobs >= 0),
      include_usage_(asked.include_usage),
      continuous_usage_(asked.continuous_usage),
      return_progress_(asked.stream && asked.return_progress),
      chat_(asked.chat),
      choices_per_prompt_(asked.fields.choices),
      answer_(std::move(answer)) {
  for (size_t prompt = 0; prompt < asked.prompts.size(); ++prompt) {
    prompt_tokens_ += static_cast<int64_t>(asked.prompts[prompt].size());
    for (int i = 0; i < choices_per_prompt_; ++i) {
      choices_.emplace_back(service_->texts(), chat_, asked.echoes.empty() ? "" : asked.echoes[prompt]);
    }
  }
}

void AnswerRun::Enter(int index, int64_t prompt_tokens) {
  const std::string id = choices() == 1 ? id_ : fmt::format("{}[{}]", id_, index);
  std::shared_ptr<BoardEntry> entry = service_->board().Add(id, prompt_tokens);
  const std::lock_guard lock(mutex_);
  choices_[static_cast<size_t>(index)].entry = std::move(entry);
}

void AnswerRun::Predict(int index, double ttft_ms) {
  const std::lock_guard lock(mutex_);
  choices_[static_cast<size_t>(index)].entry->predicted_ttft_ms = ttft_ms;
}

void AnswerRun::Withdraw(int index) {
  const std::lock_guard lock(mutex_);
  service_->board().Remove(*choices_[static_cast<size_t>(index)].entry);
}

void AnswerRun::Open(double predicted_ttft_ms) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  open_ = true;
  predicted_ttft_ms_ = predicted_ttft_ms;
  for (const auto& [index, event] : pending_) {
    if (stream_ && Failed(event)) {  // before anything was said, so that it has a status
      stream_ = false;
      return Fail(event);
    }
  }
  if (stream_) BeginStream();
  for (auto& [index, event] : pending_) {
    if (!closed_) Handle(index, event);
  }
  pending_.clear();
}

void AnswerRun::Leave() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

void AnswerRun::Deliver(int index, RequestEvent event) noexcept {
  const std::lock_guard lock(mutex_);
  try {
    Note(choices_[static_cast<size_t>(index)], event);
    if (closed_) return;
    if (open_) {
      Handle(index, event);
    } else {
      pending_.emplace_back(index, std::move(event));
    }
  } catch (const std::exception&) {  // no memory for what is to be said
    if (closed_) return;
    closed_ = true;
    answer_->Break();
  }
}

void AnswerRun::Note(const Choice& choice, const RequestEvent& event) {
  BoardEntry& entry = *choice.entry;
  switch (event.kind) {
    case RequestEvent::Kind::kProgress:
      entry.begun = true;
      entry.prompt_done = event.prompt_done;
      entry.cached_tokens = event.cached_tokens;
      entry.predicted_left_ms = event.predicted_left_ms;
      return;
    case RequestEvent::Kind::kToken:
      entry.begun = true;
      entry.prompt_done = entry.prompt_tokens;
      entry.predicted_left_ms = 0;
      ++entry.new_tokens;
      return;
    case RequestEvent::Kind::kEnd:
      service_->End(entry, {entry.id, event.finish, event.error, event.stats});
      return;
  }
}

void AnswerRun::Handle(int index, RequestEvent& event) {
  switch (event.kind) {
    case RequestEvent::Kind::kProgress:
      return HandleProgress(index, event);
    case RequestEvent::Kind::kToken:
      return HandleToken(index, event);
    case RequestEvent::Kind::kEnd:
      return HandleEnd(index, event);
  }
}

void AnswerRun::HandleProgress(int index, const RequestEvent& event) {
  Choice& choice = choices_[static_cast<size_t>(index)];
  choice.cached_tokens = event.cached_tokens;
  if (!return_progress_ || choice.new_tokens > 0) return;
  const PromptProgress progress{event.prompt_total, event.cached_tokens, event.prompt_done, MsSince(begin_),
                                event.predicted_left_ms};
  WriteEvent(form_.ProgressChunk(index, progress, More()));
}

void AnswerRun::HandleToken(int index, const RequestEvent& event) {
  Choice& choice = choices_[static_cast<size_t>(index)];
  ++choice.new_tokens;
  if (logprobs_) choice.logprobs.Add(event);
  if (!stream_) {
    choice.text += event.text;
  } else if (logprobs_ || !event.text.empty()) {
    WriteEvent(form_.TextChunk(index, event.text, logprobs_ ? choice.logprobs.Take() : "", More()));
  }
}

void AnswerRun::HandleEnd(int index, RequestEvent& event) {
  if (Failed(event)) return Fail(event);
  Choice& choice = choices_[static_cast<size_t>(index)];
  choice.finish = event.finish;
  choice.cached_tokens = event.stats.cached_tokens;
  choice.new_tokens = event.stats.new_tokens;
  choice.stats = std::move(event.stats);
  ++ended_;
  const bool last = ended_ == choices();
  if (!stream_) {
    choice.text += event.text;
    if (last) SendWhole();
    return;
  }
  if (!event.text.empty()) WriteEvent(form_.TextChunk(index, event.text, "", More()));
  const bool tells = last && !include_usage_;
  const std::string stats = tells ? ",\"runahead\":" + StatsJson(choices_.front().stats) : "";
  WriteEvent(form_.FinishChunk(index, choice.finish, More() + stats));
  if (last) FinishStream();
}

void AnswerRun::Fail(const RequestEvent& event) {
  const ApiError error = ErrorOf(event);
  closed_ = true;
  if (stream_) {
    WriteEvent(ErrorBody(error));
    answer_->Break();
  } else {
    answer_->Send({error.status(), {{"content-type", "application/json"}}}, ErrorBody(error));
  }
}

void AnswerRun::BeginStream() {
  HttpHead head;
  head.fields = {{"content-type", "text/event-stream"}, {"cache-control", "no-cache"}, {"x-accel-buffering", "no"}};
  for (HttpField& field : Fields()) head.fields.push_back(std::move(field));
  answer_->Begin(std::move(head));
  for (int i = 0; i < choices(); ++i) {
    const std::string& echo = choices_[static_cast<size_t>(i)].text;
    if (chat_) WriteEvent(form_.RoleChunk(i, More()));
    if (!echo.empty()) WriteEvent(form_.TextChunk(i, echo, "", More()));
  }
}

void AnswerRun::FinishStream() {
  if (include_usage_) {
    WriteEvent(form_.LastChunk(
        fmt::format(R"(,"usage":{},"runahead":{})", UsageJson(UsageNow()), StatsJson(choices_.front().stats))));
  }
  WriteEvent("[DONE]");
  closed_ = true;
  NoteFacts();
  answer_->End();
}

void AnswerRun::SendWhole() {
  std::vector<WholeChoice> whole;
  whole.reserve(choices_.size());
  for (Choice& choice : choices_) {
    whole.push_back({std::move(choice.text), logprobs_ ? choice.logprobs.Take() : "", choice.finish});
  }
  const RequestStats& stats = choices_.front().stats;
  HttpHead head;
  head.fields = Fields();
  head.fields.push_back({"content-type", "application/json"});
  head.fields.push_back({"x-runahead-ttft-ms", NumberText(stats.ttft_ms)});
  head.fields.push_back({"x-runahead-ranks", fmt::format("{}", fmt::join(stats.members, ","))});
  head.fields.push_back({"x-runahead-cuts", fmt::format("{}", fmt::join(stats.cuts, ","))});
  head.fields.push_back({"x-runahead-rounds", fmt::format("{}", stats.rounds)});
  closed_ = true;
  NoteFacts();
  answer_->Send(std::move(head), form_.Whole(whole, UsageNow(), stats));
}

void AnswerRun::NoteFacts() {
  const Usage usage = UsageNow();
  answer_->Note({usage.prompt_tokens, usage.cached_tokens, usage.new_tokens, choices_.front().stats.ttft_ms});
}

void AnswerRun::WriteEvent(const std::string& data) { answer_->Write(ServerSentEvent(data)); }

std::string AnswerRun::More() const {
  if (continuous_usage_) return ",\"usage\":" + UsageJson(UsageNow());
  return include_usage_ ? ",\"usage\":null" : "";
}

Usage AnswerRun::UsageNow() const {
  Usage usage;
  usage.prompt_tokens = prompt_tokens_;
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (i % static_cast<size_t>(choices_per_prompt_) == 0) usage.cached_tokens += choices_[i].cached_tokens;
    usage.new_tokens += choices_[i].new_tokens;
  }
  return usage;
}

std::vector<HttpField> AnswerRun::Fields() const {
  if (predicted_ttft_ms_ <= 0) return {};
  return {{"x-runahead-predicted-ttft-ms", NumberText(predicted_ttft_ms_)}};
}

}  // namespace runahead::protocol
