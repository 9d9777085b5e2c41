// /tokenize and /detokenize, as the clients of vLLM and of llama.cpp know them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/json.h"
#include "protocol/chat_prompts.h"
#include "protocol/request_fields.h"
#include "protocol/token_texts.h"

namespace runahead::protocol {

/// The answer of /tokenize: `prompt` (with `add_special_tokens`, true unless told, and `return_token_strs`),
/// `content` (with `add_special`, false unless told, and `with_pieces`), or `messages` as in a chat. Throws
/// FieldError.
std::string Tokenized(std::string_view body, const Json& parsed, const ModelLimits& limits, ChatPrompts& chat,
                      TokenTexts& texts);

/// The answer of /detokenize: the text of `tokens`, special ones as they are spelt. Throws FieldError.
std::string Detokenized(const Json& parsed, const ModelLimits& limits);

}  // namespace runahead::protocol
