// An answer on its way from the engine's events to the client.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "protocol/answer_form.h"
#include "protocol/asked.h"
#include "protocol/http_call.h"
#include "protocol/logprobs_json.h"
#include "protocol/service.h"
#include "runahead/request.h"

namespace runahead::protocol {

/// Gathers the choices of one answer, or writes them as they come. The engine's thread tells it of events, which wait
/// until Open; what comes behind an error or for a client that has left is dropped. Thread-safe.
class AnswerRun {
 public:
  AnswerRun(std::shared_ptr<Service> service, const Asked& asked, std::shared_ptr<HttpAnswer> answer);

  [[nodiscard]] int choices() const { return static_cast<int>(choices_.size()); }

  /// Shows choice `index` on the board, as one that is about to be submitted.
  void Enter(int index, int64_t prompt_tokens);
  /// It was submitted.
  void Predict(int index, double ttft_ms);
  /// It was not.
  void Withdraw(int index);

  /// All choices were submitted: the answer may begin. `predicted_ttft_ms`: of the first; 0: nothing is measured.
  void Open(double predicted_ttft_ms);
  /// Nobody waits for the answer any more.
  void Leave();

  /// An event of choice `index`, in its order. Never throws, never blocks for long.
  void Deliver(int index, RequestEvent event) noexcept;

 private:
  struct Choice {
    Choice(TokenTexts& texts, bool chat, std::string echo) : text(std::move(echo)), logprobs(texts, chat) {}
    std::shared_ptr<BoardEntry> entry;
    std::string text;  // all of it, or of a stream what opens it
    LogprobsJson logprobs;
    int64_t cached_tokens = 0;
    int64_t new_tokens = 0;
    FinishReason finish = FinishReason::kLength;
    RequestStats stats;
  };

  /// Tells the board, whether or not anybody waits for the answer.
  void Note(const Choice& choice, const RequestEvent& event);
  void Handle(int index, RequestEvent& event);
  void HandleProgress(int index, const RequestEvent& event);
  void HandleToken(int index, const RequestEvent& event);
  void HandleEnd(int index, RequestEvent& event);
  void Fail(const RequestEvent& event);
  void BeginStream();
  void FinishStream();
  void SendWhole();
  void NoteFacts();
  void WriteEvent(const std::string& data);
  /// Further fields of a stream's chunk.
  [[nodiscard]] std::string More() const;
  [[nodiscard]] Usage UsageNow() const;
  [[nodiscard]] std::vector<HttpField> Fields() const;

  std::shared_ptr<Service> service_;
  std::string id_;
  AnswerForm form_;
  bool stream_;
  bool logprobs_;
  bool include_usage_;
  bool continuous_usage_;
  bool return_progress_;
  bool chat_;
  int choices_per_prompt_;
  int64_t prompt_tokens_ = 0;  // of all prompts
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();

  std::mutex mutex_;  // guards all below
  std::shared_ptr<HttpAnswer> answer_;
  std::vector<Choice> choices_;
  std::vector<std::pair<int, RequestEvent>> pending_;  // before Open
  double predicted_ttft_ms_ = 0;
  int ended_ = 0;  // choices
  bool open_ = false;
  bool closed_ = false;  // nothing more is said
};

}  // namespace runahead::protocol
