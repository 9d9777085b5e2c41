// A conversation as token ids: what was said stays as it is, so that its rows can be found in the cache.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "answer.h"
#include "runahead/tokenizer.h"

namespace runahead::cli {

/// The texts around what is said.
struct TalkForm {
  std::string opening;  // before the first turn
  std::string user_prefix = "User: ";
  std::string assistant_prefix = "\nAssistant:";
  std::string turn_end = "\n";  // behind an answer

  /// The text with which a model begins the user's next turn by itself, to stop there; may be empty.
  [[nodiscard]] std::string NextTurn() const;
};

/// The ids of a conversation. Borrows the tokenizer.
class Talk {
 public:
  Talk(const Tokenizer& tokenizer, TalkForm form);

  /// All that was said, and the user's `line` for the model to answer. Throws ConfigError for a line that is not
  /// UTF-8.
  [[nodiscard]] std::vector<int32_t> PromptFor(std::string_view line) const;
  /// Goes on behind `answer`, the answer to `prompt`. Its own ids are kept up to where its text ends.
  void Add(std::vector<int32_t> prompt, const Answer& answer);
  /// Forgets all but the opening.
  void Clear();
  /// Tokens of all that was said.
  [[nodiscard]] int64_t size() const { return static_cast<int64_t>(ids_.size()); }

 private:
  /// The ids of the answer's text: not those of a text that it stopped at.
  [[nodiscard]] std::vector<int32_t> IdsOfText(const Answer& answer) const;

  const Tokenizer& tokenizer_;
  TalkForm form_;
  std::vector<int32_t> ids_;
  bool answered_ = false;  // an answer stands at the end
};

}  // namespace runahead::cli
