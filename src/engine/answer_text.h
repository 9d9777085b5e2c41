// The text of an answer as its tokens come, and where it ends.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runahead/generate.h"

namespace runahead {

/// Throws ConfigError for options out of range, for stop strings without a tokenizer, and for ids outside of a
/// vocabulary of `vocab`. `tokenizer` may be null.
void CheckOptions(const GenerationOptions& options, const Tokenizer* tokenizer, size_t vocab);

/// Decides with each token whether an answer ends, and gives its text as it becomes final. Borrows the tokenizer,
/// which may be null: then there is no text.
class AnswerText {
 public:
  /// `on_text` may be empty.
  AnswerText(const Tokenizer* tokenizer, GenerationOptions options, std::function<void(std::string_view)> on_text);

  /// Whether `token` ends the answer and is no part of it.
  [[nodiscard]] std::optional<FinishReason> EndsBefore(int32_t token) const;
  /// Adds a token; true when a stop string is complete, so that the answer ends behind it.
  bool Add(int32_t token);
  /// What was held back comes too; true when it completes a stop string.
  bool End();
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  bool Feed(std::string_view piece, bool shown);
  [[nodiscard]] size_t LongestHeldBack() const;
  void Pass(size_t n);
  [[nodiscard]] std::string Decoded(int32_t token);

  const Tokenizer* tokenizer_;
  GenerationOptions options_;
  std::vector<int32_t> stop_ids_;  // those asked for, and special tokens among the stop strings
  std::function<void(std::string_view)> on_text_;
  std::optional<StreamDecoder> decoder_;
  std::string held_;         // may be the beginning of a stop string
  std::vector<bool> shown_;  // [bytes held], false: of a special token, which is compared and not passed on
  std::string text_;
};

}  // namespace runahead
