#include "runahead/generate.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/deadline.h"
#include "engine/sampler.h"
#include "model/model_loader.h"
#include "runahead/error.h"

namespace runahead {
namespace {

template <typename T, typename Value>
bool Contains(const std::vector<T>& all, const Value& value) {
  return std::find(all.begin(), all.end(), value) != all.end();
}

/// Passes text on, holding back what may be the beginning of a stop string. Special tokens take part in the
/// comparison, but are not passed on.
class StopFilter {
 public:
  StopFilter(const std::vector<std::string>& stop, const std::function<void(std::string_view)>& on_text)
      : stop_(stop), on_text_(on_text) {}

  /// True when a stop string is complete; nothing from it on is passed on.
  bool Feed(std::string_view piece, bool shown) {
    held_ += piece;
    shown_.insert(shown_.end(), piece.size(), shown);
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
    std::string piece;
    for (size_t i = 0; i < n; ++i) {
      if (shown_[i]) piece += held_[i];
    }
    if (on_text_ && !piece.empty()) on_text_(piece);
    text_ += piece;
    held_.erase(0, n);
    shown_.erase(shown_.begin(), shown_.begin() + static_cast<std::ptrdiff_t>(n));
  }

  const std::vector<std::string>& stop_;
  const std::function<void(std::string_view)>& on_text_;
  std::string held_;
  std::vector<bool> shown_;  // [bytes held]
  std::string text_;
};

/// The text of a continuation as its tokens come; empty without a tokenizer.
class Text {
 public:
  Text(const Tokenizer* tokenizer, const std::vector<std::string>& stop,
       const std::function<void(std::string_view)>& on_text)
      : tokenizer_(tokenizer), filter_(stop, on_text) {
    if (tokenizer != nullptr) decoder_.emplace(*tokenizer);
  }

  /// True when a stop string is complete.
  bool Add(int32_t token) {
    if (!decoder_) return false;
    return filter_.Feed(Decoded(token), true) || filter_.Feed(tokenizer_->SpecialToken(token), false);
  }
  /// What was held back comes too; true when it completes a stop string.
  bool End() {
    if (!decoder_ || filter_.Feed(decoder_->Flush(), true)) return decoder_.has_value();
    filter_.Flush();
    return false;
  }
  [[nodiscard]] const std::string& text() const { return filter_.text(); }

 private:
  /// Nothing where the model's head is padded beyond the tokenizer's vocabulary.
  std::string Decoded(int32_t token) {
    try {
      return decoder_->Feed(token);
    } catch (const ConfigError&) {
      return {};
    }
  }

  const Tokenizer* tokenizer_;
  std::optional<StreamDecoder> decoder_;
  StopFilter filter_;
};

void CheckOptions(const GenerationOptions& options, const Tokenizer* tokenizer, size_t vocab) {
  if (options.max_new_tokens < 1) {
    throw ConfigError(fmt::format("new tokens: expected 1 or more, got {}", options.max_new_tokens));
  }
  if (!options.stop.empty() && tokenizer == nullptr) throw ConfigError("stop strings need a tokenizer");
  if (Contains(options.stop, "")) throw ConfigError("stop: a stop string is empty");
  for (const int32_t id : options.stop_ids) {
    if (id < 0 || static_cast<size_t>(id) >= vocab) {
      throw ConfigError(fmt::format("stop: token id {} is outside the vocabulary of {}", id, vocab));
    }
  }
}

/// The stop ids, and the special tokens among the stop strings: those end a text before they are part of its ids.
std::vector<int32_t> StopIds(const GenerationOptions& options, const Tokenizer* tokenizer) {
  std::vector<int32_t> ids = options.stop_ids;
  for (const std::string& stop : options.stop) {
    const std::optional<int32_t> id = tokenizer->TokenId(stop);
    if (id && tokenizer->SpecialToken(*id) == stop) ids.push_back(*id);
  }
  return ids;
}

}  // namespace

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
  Text text(tokenizer, options.stop, on_text);
  const std::vector<int32_t> stop_ids = StopIds(options, tokenizer);

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
    if (Contains(stop_ids, token) || Contains(options.eos, token)) {
      result.finish = Contains(stop_ids, token) ? FinishReason::kStop : FinishReason::kEndOfSequence;
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
