#include "protocol/completion_call.h"

#include <utility>
#include <vector>

#include "protocol/answer_run.h"
#include "runahead/request.h"

namespace runahead::protocol {
namespace {

/// Owns the handles, which cancel what runs.
class CompletionCall final : public HttpCall {
 public:
  explicit CompletionCall(std::shared_ptr<AnswerRun> run) : run_(std::move(run)) {}
  ~CompletionCall() override { run_->Leave(); }
  CompletionCall(const CompletionCall&) = delete;
  CompletionCall& operator=(const CompletionCall&) = delete;

  /// Submits the choices from `first` on of one prompt.
  void Submit(int first, const Engine& engine, const std::shared_ptr<const Tokenizer>& tokenizer, Request request) {
    const int end = first + request.choices;
    for (int i = first; i < end; ++i) run_->Enter(i, static_cast<int64_t>(request.prompt.size()));
    try {
      handles_.push_back(engine.Submit(std::move(request), tokenizer, [run = run_, first](RequestEvent event) {
        const int index = first + event.choice;
        run->Deliver(index, std::move(event));
      }));
    } catch (...) {
      for (int i = first; i < end; ++i) run_->Withdraw(i);
      throw;
    }
    for (int i = first; i < end; ++i) run_->Predict(i, handles_.back().predicted_ttft_ms());
  }

  void Open() { run_->Open(handles_.front().predicted_ttft_ms()); }

 private:
  std::shared_ptr<AnswerRun> run_;
  std::vector<RequestHandle> handles_;
};

}  // namespace

std::unique_ptr<HttpCall> RunCompletion(const Engine& engine, const std::shared_ptr<const Tokenizer>& tokenizer,
                                        std::shared_ptr<Service> service, const Asked& asked,
                                        std::shared_ptr<HttpAnswer> answer) {
  auto call =
      std::make_unique<CompletionCall>(std::make_shared<AnswerRun>(std::move(service), asked, std::move(answer)));
  int first = 0;
  for (const std::vector<int32_t>& prompt : asked.prompts) {
    Request request = asked.fields.request;
    request.prompt = prompt;
    request.choices = asked.fields.choices;
    request.prefill.record_timeline = true;
    call->Submit(first, engine, tokenizer, std::move(request));
    first += asked.fields.choices;
  }
  call->Open();
  return call;
}

}  // namespace runahead::protocol
