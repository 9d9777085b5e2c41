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

  /// Submits choice `index`.
  void Submit(int index, const Engine& engine, const std::shared_ptr<const Tokenizer>& tokenizer, Request request) {
    run_->Enter(index, static_cast<int64_t>(request.prompt.size()));
    try {
      handles_.push_back(engine.Submit(std::move(request), tokenizer, [run = run_, index](RequestEvent event) {
        run->Deliver(index, std::move(event));
      }));
    } catch (...) {
      run_->Withdraw(index);
      throw;
    }
    run_->Predict(index, handles_.back().predicted_ttft_ms());
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
  int index = 0;
  for (const std::vector<int32_t>& prompt : asked.prompts) {
    for (int choice = 0; choice < asked.fields.choices; ++choice) {
      Request request = asked.fields.request;
      request.prompt = prompt;
      request.prefill.record_timeline = true;
      request.generation.sampling.seed += static_cast<uint64_t>(choice);
      call->Submit(index++, engine, tokenizer, std::move(request));
    }
  }
  call->Open();
  return call;
}

}  // namespace runahead::protocol
