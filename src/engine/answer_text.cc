#include "engine/answer_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "runahead/error.h"

namespace runahead {
namespace {

template <typename T, typename Value>
bool Contains(const std::vector<T>& all, const Value& value) {
  return std::find(all.begin(), all.end(), value) != all.end();
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

AnswerText::AnswerText(const Tokenizer* tokenizer, GenerationOptions options,
                       std::function<void(std::string_view)> on_text)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      stop_ids_(StopIds(options_, tokenizer)),
      on_text_(std::move(on_text)) {
  if (tokenizer != nullptr) decoder_.emplace(*tokenizer);
}

std::optional<FinishReason> AnswerText::EndsBefore(int32_t token) const {
  if (Contains(stop_ids_, token)) return FinishReason::kStop;
  if (Contains(options_.eos, token)) return FinishReason::kEndOfSequence;
  return std::nullopt;
}

bool AnswerText::Add(int32_t token) {
  if (!decoder_) return false;
  return Feed(Decoded(token), true) || Feed(tokenizer_->SpecialToken(token), false);
}

bool AnswerText::End() {
  if (!decoder_) return false;
  if (Feed(decoder_->Flush(), true)) return true;
  Pass(held_.size());
  return false;
}

std::string AnswerText::Decoded(int32_t token) {
  try {
    return decoder_->Feed(token);
  } catch (const ConfigError&) {  // the model's head is padded beyond the tokenizer's vocabulary
    return {};
  }
}

/// True when a stop string is complete; nothing from it on is passed on.
bool AnswerText::Feed(std::string_view piece, bool shown) {
  held_ += piece;
  shown_.insert(shown_.end(), piece.size(), shown);
  size_t cut = std::string::npos;
  for (const std::string& stop : options_.stop) cut = std::min(cut, held_.find(stop));
  if (cut != std::string::npos) {
    held_.resize(cut);
    Pass(held_.size());
    return true;
  }
  Pass(held_.size() - LongestHeldBack());
  return false;
}

/// Bytes at the end of held_ that begin some stop string.
size_t AnswerText::LongestHeldBack() const {
  size_t longest = 0;
  for (const std::string& stop : options_.stop) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n) {
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, n))) longest = n;
    }
  }
  return longest;
}

void AnswerText::Pass(size_t n) {
  std::string piece;
  for (size_t i = 0; i < n; ++i) {
    if (shown_[i]) piece += held_[i];
  }
  if (on_text_ && !piece.empty()) on_text_(piece);
  text_ += piece;
  held_.erase(0, n);
  shown_.erase(shown_.begin(), shown_.begin() + static_cast<std::ptrdiff_t>(n));
}

}  // namespace runahead
