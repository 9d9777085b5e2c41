#include "protocol/chat_prompts.h"

#include <utility>

#include "protocol/api_error.h"
#include "protocol/conversation.h"
#include "protocol/http_status.h"

namespace runahead::protocol {

ChatPrompts::ChatPrompts(std::unique_ptr<chat::ChatRenderer> renderer, std::shared_ptr<const Tokenizer> tokenizer,
                         std::string reason)
    : renderer_(std::move(renderer)), tokenizer_(std::move(tokenizer)), reason_(std::move(reason)) {
  if (reason_.empty()) reason_ = "this server has nothing that renders conversations";
}

std::vector<int32_t> ChatPrompts::Ids(std::string_view body, const Json& parsed) {
  if (!available()) throw ApiError(kNotImplemented, reason_, "no_chat");
  const chat::ChatRequest request = ReadConversation(body, parsed);
  try {
    return tokenizer_->Encode(renderer_->Render(request), /*add_special=*/false);
  } catch (const IoError& error) {
    throw ApiError(kUnavailable, error.what(), "no_chat");
  }
}

}  // namespace runahead::protocol
