#include "protocol/answer_form.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "protocol/json_text.h"

namespace runahead::protocol {
namespace {

std::string Opening(const AnswerName& name, std::string_view object) {
  return fmt::format(R"({{"id":{},"object":"{}","created":{},"model":{},"system_fingerprint":{},"choices":[)",
                     Quoted(name.id), object, name.created, Quoted(name.model), Quoted(name.fingerprint));
}

std::string_view OrNull(std::string_view json) { return json.empty() ? "null" : json; }

}  // namespace

std::string_view FinishName(FinishReason finish) {
  switch (finish) {
    case FinishReason::kLength:
      return "length";
    case FinishReason::kEndOfSequence:
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "";
}

std::string UsageJson(const Usage& usage) {
  return fmt::format(
      R"({{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":{}}}}})",
      usage.prompt_tokens, usage.new_tokens, usage.prompt_tokens + usage.new_tokens, usage.cached_tokens);
}

std::string StatsJson(const RequestStats& stats) {
  return fmt::format(
      R"({{"predicted_ttft_ms":{},"ttft_ms":{},"tpot_ms":{},"queued_ms":{},"cached_tokens":{},"members":[{}],"cuts":[{}],"rounds":{}}})",
      NumberText(stats.predicted_ttft_ms), NumberText(stats.ttft_ms), NumberText(stats.tpot_ms),
      NumberText(stats.queued_ms), stats.cached_tokens, fmt::join(stats.members, ","), fmt::join(stats.cuts, ","),
      stats.rounds);
}

std::string ServerSentEvent(std::string_view data) { return fmt::format("data: {}\n\n", data); }

AnswerForm::AnswerForm(const AnswerName& name)
    : chat_(name.chat),
      whole_(Opening(name, chat_ ? "chat.completion" : "text_completion")),
      chunk_(Opening(name, chat_ ? "chat.completion.chunk" : "text_completion")) {}

std::string AnswerForm::Whole(const std::vector<WholeChoice>& choices, const Usage& usage,
                              const RequestStats& stats) const {
  std::string list;
  for (size_t i = 0; i < choices.size(); ++i) {
    const WholeChoice& choice = choices[i];
    const std::string text = Quoted(choice.text);
    const std::string said =
        chat_ ? fmt::format(R"("message":{{"role":"assistant","content":{},"refusal":null}})", text)
              : fmt::format(R"("text":{})", text);
    AddTo(list, fmt::format(R"({{"index":{},{},"logprobs":{},"finish_reason":{}}})", i, said, OrNull(choice.logprobs),
                            Quoted(FinishName(choice.finish))));
  }
  return fmt::format(R"({}{}],"usage":{},"runahead":{}}})", whole_, list, UsageJson(usage), StatsJson(stats));
}

std::string AnswerForm::Chunk(int index, std::string_view delta, std::string_view logprobs, std::string_view finish,
                              std::string_view more) const {
  return fmt::format(R"({}{{"index":{},{},"logprobs":{},"finish_reason":{}}}]{}}})", chunk_, index, delta,
                     OrNull(logprobs), OrNull(finish), more);
}

std::string AnswerForm::RoleChunk(int index, std::string_view more) const {
  return Chunk(index, R"("delta":{"role":"assistant","content":""})", "", "", more);
}

std::string AnswerForm::ProgressChunk(int index, const PromptProgress& progress, std::string_view more) const {
  const std::string field = fmt::format(
      R"(,"prompt_progress":{{"total":{},"cache":{},"processed":{},"time_ms":{},"predicted_left_ms":{}}})",
      progress.total, progress.cache, progress.processed, NumberText(progress.time_ms),
      NumberText(progress.predicted_left_ms));
  return Chunk(index, chat_ ? R"("delta":{})" : R"("text":"")", "", "", field + std::string(more));
}

std::string AnswerForm::TextChunk(int index, std::string_view text, std::string_view logprobs,
                                  std::string_view more) const {
  const std::string said =
      fmt::format(fmt::runtime(chat_ ? R"("delta":{{"content":{}}})" : R"("text":{})"), Quoted(text));
  return Chunk(index, said, logprobs, "", more);
}

std::string AnswerForm::FinishChunk(int index, FinishReason finish, std::string_view more) const {
  return Chunk(index, chat_ ? R"("delta":{})" : R"("text":"")", "", Quoted(FinishName(finish)), more);
}

std::string AnswerForm::LastChunk(std::string_view more) const { return fmt::format("{}]{}}}", chunk_, more); }

}  // namespace runahead::protocol
