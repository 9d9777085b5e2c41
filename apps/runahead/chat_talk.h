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

/// What a model is asked to answer: all that was said, and the user's line.
struct Turn {
  std::string line;
  std::vector<int32_t> ids;  // the prompt
};

/// The ids of a conversation.
class Talk {
 public:
  Talk() = default;
  virtual ~Talk() = default;
  Talk(const Talk&) = delete;
  Talk& operator=(const Talk&) = delete;

  /// Throws ConfigError for a line that is not UTF-8, or that cannot come next.
  [[nodiscard]] virtual Turn Next(std::string_view line) = 0;
  /// Goes on behind `answer`, the answer to `turn`. Its own ids are kept up to where its text ends.
  virtual void Add(Turn turn, const Answer& answer) = 0;
  /// Forgets all but the opening.
  virtual void Clear() = 0;
  /// Tokens before the first turn, at least.
  [[nodiscard]] virtual int64_t opening_tokens() const = 0;
};

/// The ids of the answer's text: not those of a text that it stopped at.
std::vector<int32_t> IdsOfText(const Tokenizer& tokenizer, const Answer& answer);

/// A conversation with the same texts around each turn. Borrows the tokenizer.
class PlainTalk final : public Talk {
 public:
  PlainTalk(const Tokenizer& tokenizer, TalkForm form);

  [[nodiscard]] Turn Next(std::string_view line) override;
  void Add(Turn turn, const Answer& answer) override;
  void Clear() override;
  [[nodiscard]] int64_t opening_tokens() const override { return static_cast<int64_t>(opening_.size()); }

 private:
  const Tokenizer& tokenizer_;
  TalkForm form_;
  std::vector<int32_t> opening_;
  std::vector<int32_t> ids_;  // all that was said
  bool answered_ = false;     // an answer stands at the end
};

}  // namespace runahead::cli
