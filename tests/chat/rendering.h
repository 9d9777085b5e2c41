// Renders one conversation with a template of its own, for tests.
#pragma once

#include <string>
#include <string_view>

#include "base/file.h"
#include "base/json.h"
#include "chat/chat_renderer.h"
#include "tests/cli/process.h"

namespace runahead::chat {

/// `conversation`, a JSON object with at least one field, to be rendered with `text` for its template.
inline ChatRequest WithTemplate(std::string_view text, std::string_view conversation) {
  const std::string field = R"({"chat_template": )" + Json(text.empty() ? "{{ '' }}" : text).dump() + ", ";
  return ChatRequest::Parse(field + std::string(conversation.substr(1)), "here");
}

/// Of a model without templates, whose special tokens are those of the goldens.
inline ChatRenderer NewRenderer() {
  const TemporaryFolder folder;
  WriteFile(folder / "tokenizer_config.json",
            R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "<pad>"})");
  return ChatRenderer(ChatTemplates(folder / ""));
}

}  // namespace runahead::chat
