#include "answer.h"

#include <array>
#include <chrono>
#include <optional>
#include <utility>

namespace runahead::cli {
namespace {

using OrderedJson = nlohmann::ordered_json;

OrderedJson LogprobsJson(const std::vector<AnswerToken>& tokens) {
  OrderedJson list = OrderedJson::array();
  for (const AnswerToken& each : tokens) {
    OrderedJson top = OrderedJson::array();
    for (const TokenLogprob& likely : each.likely) top.push_back({{"id", likely.id}, {"logprob", likely.logprob}});
    list.push_back({{"id", each.token.id}, {"logprob", each.token.logprob}, {"top", std::move(top)}});
  }
  return list;
}

}  // namespace

std::vector<int32_t> Answer::ids() const {
  std::vector<int32_t> ids;
  ids.reserve(tokens.size());
  for (const AnswerToken& each : tokens) ids.push_back(each.token.id);
  return ids;
}

bool Answer::Add(RequestEvent event) {
  text += event.text;
  if (event.kind == RequestEvent::Kind::kToken) tokens.push_back({event.token, std::move(event.likely)});
  if (event.kind != RequestEvent::Kind::kEnd) return false;
  finish = event.finish;
  error = std::move(event.error);
  stats = std::move(event.stats);
  return true;
}

Answer AwaitAnswer(RequestHandle handle, const std::function<bool()>& stop,
                   const std::function<void(std::string_view)>& on_text) {
  constexpr auto kPatience = std::chrono::milliseconds(50);  // between two questions whether to stop
  Answer answer;
  bool cancelled = false;
  while (true) {
    if (!cancelled && stop()) {
      handle.Cancel();
      cancelled = true;
    }
    std::optional<RequestEvent> event = handle.Next(kPatience);
    if (!event) continue;
    if (on_text && !event->text.empty()) on_text(event->text);
    if (answer.Add(*std::move(event))) return answer;
  }
}

OrderedJson AnswerJson(const Answer& answer, bool logprobs) {
  if (answer.finish == FinishReason::kError) return {{"finish", Name(answer.finish)}, {"error", answer.error}};
  OrderedJson json = {{"ids", answer.ids()},
                      {"text", answer.text},
                      {"finish", Name(answer.finish)},
                      {"prompt_tokens", answer.stats.prompt_tokens},
                      {"cached_tokens", answer.stats.cached_tokens},
                      {"ttft_ms", answer.stats.ttft_ms},
                      {"tpot_ms", answer.stats.tpot_ms}};
  if (logprobs) json["logprobs"] = LogprobsJson(answer.tokens);
  return json;
}

std::string OneLine(const OrderedJson& json) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kLineEnds{
      {{"\xC2\x85", "\\u0085"}, {"\xE2\x80\xA8", "\\u2028"}, {"\xE2\x80\xA9", "\\u2029"}}};
  std::string line = json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  for (const auto& [sign, escape] : kLineEnds) {
    for (size_t at = 0; (at = line.find(sign, at)) != std::string::npos; at += escape.size()) {
      line.replace(at, sign.size(), escape);
    }
  }
  return line;
}

}  // namespace runahead::cli
