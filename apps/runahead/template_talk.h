// A conversation in the form of the model's chat template.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "chat/chat_renderer.h"
#include "chat_talk.h"
#include "runahead/tokenizer.h"

namespace runahead::cli {

/// What stands before a conversation's first answer; either may be empty.
struct TalkOpening {
  std::string system;    // the first message
  std::string document;  // before the user's first line
};

/// Each turn is rendered with all before it. Where the text begins with what was said, the ids of that stay, so that
/// their rows can be found in the cache; a template that changes earlier turns makes all ids anew. Borrows the
/// tokenizer.
class TemplateTalk final : public Talk {
 public:
  /// Throws ConfigError for texts that are not UTF-8, and IoError when there is nothing to render with.
  TemplateTalk(const Tokenizer& tokenizer, chat::ChatTemplates templates, TalkOpening opening);

  [[nodiscard]] Turn Next(std::string_view line) override;
  void Add(Turn turn, const Answer& answer) override;
  void Clear() override;
  [[nodiscard]] int64_t opening_tokens() const override { return opening_tokens_; }

 private:
  /// The messages with the user's `line` for the last.
  [[nodiscard]] nlohmann::ordered_json MessagesWith(std::string_view line) const;
  /// The text of `messages`, for the model to answer.
  std::string Rendered(const nlohmann::ordered_json& messages);

  const Tokenizer& tokenizer_;
  chat::ChatRenderer renderer_;
  TalkOpening opening_;
  int64_t opening_tokens_ = 0;
  nlohmann::ordered_json messages_;  // all that was said
  std::string asked_;                // text of the prompt that Next gave
  std::string said_;                 // text of ids_
  std::vector<int32_t> ids_;         // all that was said; empty: nothing
};

}  // namespace runahead::cli
