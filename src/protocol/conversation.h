// The messages of a chat as a request has them, for the model's template.
#pragma once

#include <string_view>

#include "base/json.h"
#include "chat/chat_request.h"

namespace runahead::protocol {

/// Reads `messages` (content as a text or parts of type text, which are joined by lines' ends),
/// `chat_template_kwargs` (variables of the template), `documents`, `chat_template` (the name of one that the model
/// has), `add_generation_prompt` (true unless the final message goes on) and `continue_final_message`. `parsed` is
/// the same as `body`. Throws FieldError naming the message, and ApiError for parts that are not supported.
chat::ChatRequest ReadConversation(std::string_view body, const Json& parsed);

}  // namespace runahead::protocol
