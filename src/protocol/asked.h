// What a client asked for, read from the body of a request.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "protocol/request_fields.h"

namespace runahead::protocol {

/// A completion or a chat's answer that was asked for. The engine's requests are `fields.request` with each prompt.
struct Asked {
  bool chat = false;
  std::vector<std::vector<int32_t>> prompts;  // one for chat
  std::vector<std::string> echoes;            // [prompts], text before the answers; empty: not wanted
  RequestFields fields;                       // its request has no prompt
  bool stream = false;
  bool include_usage = false;     // streams: a chunk with the usage at the end
  bool continuous_usage = false;  // streams: the usage so far in every chunk
  bool return_progress = false;   // streams: events while the prompt is read
};

/// Reads the body of /v1/completions, but for `model`. Throws FieldError, and ApiError for what is not supported. A
/// seed that is missing or -1 is drawn.
Asked ReadCompletion(Json body, const ModelLimits& limits);

/// The same of /v1/chat/completions, but for its messages.
Asked ReadChat(Json body, const ModelLimits& limits);

/// Adds the ids that the messages of `body` became. No more is answered than the context has room for. Throws
/// ContextError.
void AddConversation(const Json& body, std::vector<int32_t> prompt, const ModelLimits& limits, Asked& asked);

}  // namespace runahead::protocol
