// A conversation to render, as JSON.
#pragma once

#include <string>
#include <string_view>

namespace runahead::chat {

/// `messages` and, as wanted, `tools`, `documents`, `add_generation_prompt`, `continue_final_message` and
/// `chat_template`, as transformers' apply_chat_template names them; all other fields are variables of the template.
/// The text itself goes to the template, so that the order of fields and the digits of numbers stay.
struct ChatRequest {
  std::string text;           // a JSON object
  std::string chat_template;  // a name, or a template; empty: the usual one
  bool tools = false;         // there is a list of tools, which may be empty
  std::string origin;         // opens every error

  /// Throws ConfigError naming origin, field and value for what is no JSON, a missing field or one of another type.
  static ChatRequest Parse(std::string_view text, const std::string& origin);
};

}  // namespace runahead::chat
