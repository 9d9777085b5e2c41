#include "runahead/generate.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/deadline.h"
#include "engine/sampler.h"
#include "model/model_loader.h"
#include "runahead/error.h"

namespace runahead {
namespace {

/// Passes text on, holding back what may be the beginning of a stop string.
class StopFilter {
 public:
  StopFilter(const std::vector<std::string>& stop, const std::function<void(std::string_view)>& on_text)
      : stop_(stop), on_text_(on_text) {}

  /// True when a stop string is complete; nothing from it on is passed on.
  bool Feed(std::string_view piece) {
    held_ += piece;
    size_t cut = std::string::npos;
    for (const std::string& stop : stop_) cut = std::min(cut, held_.find(stop));
    if (cut != std::string::npos) {
      held_.resize(cut);
      Flush();
      return true;
    }
    Pass(held_.size() - LongestHeldBack());
    return false;
  }

  void Flush() { Pass(held_.size()); }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  /// Bytes at the end of held_ that begin some stop string.
  [[nodiscard]] size_t LongestHeldBack() const {
    size_t longest = 0;
    for (const std::string& stop : stop_) {
      for (size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n) {
        if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, n))) longest = n;
      }
    }
    return longest;
  }

  void Pass(size_t n) {
    if (n == 0) return;
    const std::string_view piece = std::string_view(held_).substr(0, n);
    if (on_text_) on_text_(piece);
    text_ += piece;
    held_.erase(0, n);
  }

  const std::vector<std::string>& stop_;
  const std::function<void(std::string_view)>& on_text_;
  std::string held_;
  std::string text_;
};

/// What `token` adds to the text: nothing where the model's head is padded beyond the tokenizer's vocabulary.
std::string TextOf(StreamDecoder& decoder, int32_t token) {
  try {
    return decoder.Feed(token);
  } catch (const ConfigError&) {
    return {};
  }
}

void CheckOptions(const GenerationOptions& options, const Tokenizer* tokenizer) {
  if (options.max_new_tokens < 1) {
    throw ConfigError(fmt::format("new tokens: expected 1 or more, got {}", options.max_new_tokens));
  }
  if (!options.stop.empty() && tokenizer == nullptr) throw ConfigError("stop strings need a tokenizer");
  if (std::find(options.stop.begin(), options.stop.end(), "") != options.stop.end()) {
    throw ConfigError("stop: a stop string is empty");
  }
}

}  // namespace

std::string_view Name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kLength:
      return "length";
    case FinishReason::kEndOfSequence:
      return "eos";
    case FinishReason::kStopString:
      return "stop";
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown finish reason");
}

std::vector<int32_t> EndTokens(const std::filesystem::path& model_dir, const Tokenizer* tokenizer) {
  std::vector<int32_t> ids = LoadGenerationDefaults(model_dir).eos;
  const std::optional<int32_t> id = tokenizer == nullptr ? std::nullopt : tokenizer->eos_id();
  if (id && std::find(ids.begin(), ids.end(), *id) == ids.end()) ids.push_back(*id);
  return ids;
}

Generation Generate(Session& session, const Tokenizer* tokenizer, std::span<const int32_t> prompt,
                    const PrefillOptions& prefill, const GenerationOptions& options,
                    const std::function<void(std::string_view)>& on_text) {
  CheckOptions(options, tokenizer);
  Sampler sampler(options.sampling);
  std::optional<StreamDecoder> decoder;
  if (tokenizer != nullptr) decoder.emplace(*tokenizer);
  StopFilter filter(options.stop, on_text);

  Generation result;
  result.prefill = session.Prefill(prompt, prefill);
  result.prompt_logits.assign(session.logits().begin(), session.logits().end());
  const auto first = Clock::now();
  const bool greedy = options.sampling.temperature == 0;
  const auto most = static_cast<size_t>(options.max_new_tokens);
  int32_t token = sampler.Draw(session.logits());
  while (true) {
    if (std::find(options.eos.begin(), options.eos.end(), token) != options.eos.end()) {
      result.finish = FinishReason::kEndOfSequence;
      break;
    }
    result.ids.push_back(token);
    if (decoder && filter.Feed(TextOf(*decoder, token))) {
      result.finish = FinishReason::kStopString;
      break;
    }
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
  if (decoder && result.finish != FinishReason::kStopString) {
    if (filter.Feed(decoder->Flush())) {
      result.finish = FinishReason::kStopString;
    } else {
      filter.Flush();
    }
  }
  result.text = filter.text();
  return result;
}

}  // namespace runahead
