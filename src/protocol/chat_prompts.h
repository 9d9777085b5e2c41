// Conversations to prompts.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "chat/chat_renderer.h"
#include "runahead/tokenizer.h"

namespace runahead::protocol {

/// Renders with the model's chat template. Thread-safe; renderings follow each other.
class ChatPrompts {
 public:
  /// `renderer` and `tokenizer` may be null, for a `reason`.
  ChatPrompts(std::unique_ptr<chat::ChatRenderer> renderer, std::shared_ptr<const Tokenizer> tokenizer,
              std::string reason);

  /// The ids of the conversation in a body, whose JSON is `parsed`. Throws FieldError and ConfigError for what is
  /// wrong with it or refused by the template, and ApiError where there is no chat.
  std::vector<int32_t> Ids(std::string_view body, const Json& parsed);

  [[nodiscard]] bool available() const { return renderer_ != nullptr && tokenizer_ != nullptr; }

 private:
  std::unique_ptr<chat::ChatRenderer> renderer_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::string reason_;
};

}  // namespace runahead::protocol
