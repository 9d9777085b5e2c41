#include "runahead/generate.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/deadline.h"
#include "engine/answer_text.h"
#include "model/model_loader.h"
#include "runahead/error.h"
#include "worker/sampler.h"

namespace runahead {

std::string_view Name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kLength:
      return "length";
    case FinishReason::kEndOfSequence:
      return "eos";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  throw ConfigError(fmt::format("finish reason: no value has the number {}", static_cast<int>(reason)));
}

std::vector<int32_t> EndTokens(const Model& model, const Tokenizer* tokenizer) {
  std::vector<int32_t> ids = ConfigOf(model).Defaults().eos;
  const std::optional<int32_t> id = tokenizer == nullptr ? std::nullopt : tokenizer->eos_id();
  if (id && std::find(ids.begin(), ids.end(), *id) == ids.end()) ids.push_back(*id);
  return ids;
}

Generation Generate(Session& session, const Tokenizer* tokenizer, std::span<const int32_t> prompt,
                    const PrefillOptions& prefill, const GenerationOptions& options,
                    const std::function<void(std::string_view)>& on_text, const std::function<void(int32_t)>& on_id) {
  CheckOptions(options, tokenizer, session.logits().size());
  Sampler sampler(options.sampling);
  AnswerText text(tokenizer, options, on_text);

  Generation result;
  result.prefill = session.Prefill(prompt, prefill);
  result.prompt_logits.assign(session.logits().begin(), session.logits().end());
  const auto first = Clock::now();
  const bool greedy = options.sampling.temperature == 0 && !sampler.Penalizes();
  const auto most = static_cast<size_t>(options.max_new_tokens);
  sampler.SeePrompt(prompt);
  bool cut = false;  // at a stop string
  int32_t token = sampler.Draw(session.logits());
  while (true) {
    if (const std::optional<FinishReason> finish = text.EndsBefore(token)) {
      result.finish = *finish;
      break;
    }
    result.ids.push_back(token);
    sampler.SeeDrawn(token);
    if (on_id) on_id(token);
    cut = text.Add(token);
    if (cut) break;
    if (result.ids.size() == most || session.size() == session.capacity()) break;
    if (greedy) {
      token = session.AppendGreedy(token, result.ids.size() + 1 < most);
    } else {
      session.Append(token);
      token = sampler.Draw(session.logits());
    }
  }
  const double decode_ms = std::chrono::duration<double, std::milli>(Clock::now() - first).count();
  const auto decoded = static_cast<double>(session.size()) - static_cast<double>(prompt.size());
  if (decoded > 0) result.tpot_ms = decode_ms / decoded;
  if (cut || text.End()) result.finish = FinishReason::kStop;
  result.text = text.text();
  return result;
}

}  // namespace runahead
