// A request for completion as JSON, with the fields of OpenAI's API, read into what the engine takes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "runahead/request.h"
#include "runahead/tokenizer.h"

namespace runahead::cli {

/// What requests are checked against before a model's weights are loaded. Borrows the tokenizer.
struct ModelLimits {
  int64_t vocab = 0;
  int64_t context = 0;                   // tokens of prompt and answer together
  const Tokenizer* tokenizer = nullptr;  // null: there is none
  std::string no_tokenizer;              // the reason for that, as "DIR: the folder has no tokenizer"
  std::vector<int32_t> eos;              // ids that end an answer unless a request ignores them
};

struct RequestFields {
  Request request;  // of the first choice; each further one has the next seed
  int choices = 1;
};

/// Reads `prompt` (a text, a list of one text, or token ids), `max_tokens`, `temperature`, `top_p`, `top_k`, `min_p`,
/// `seed`, `stop`, `stop_token_ids`, `ignore_eos`, `presence_penalty`, `frequency_penalty`, `repetition_penalty`,
/// `logit_bias`, `logprobs`, `n`, `priority` and `deadline_ms`; null is as if missing. Defaults are OpenAI's. Throws
/// ConfigError naming origin, field and value for a field of another type or out of range, a prompt beyond the
/// context, an id outside the vocabulary, and text where there is no tokenizer.
RequestFields ReadRequestFields(const JsonObject& json, const ModelLimits& limits);

/// Whether `name` is a field that ReadRequestFields reads, or one that says nothing to an engine: `model`, `user`,
/// `metadata`, `stream`.
bool IsRequestField(std::string_view name);

}  // namespace runahead::cli
