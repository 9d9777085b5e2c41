// A request for completion as JSON, with the fields of OpenAI's API, read into what the engine takes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "runahead/request.h"
#include "runahead/tokenizer.h"

namespace runahead::protocol {

/// What requests are checked against before a model's weights are loaded. Borrows the tokenizer.
struct ModelLimits {
  int64_t vocab = 0;
  int64_t context = 0;                   // tokens of prompt and answer together
  const Tokenizer* tokenizer = nullptr;  // null: there is none
  std::string no_tokenizer;              // the reason for that, as "DIR: the folder has no tokenizer"
  std::vector<int32_t> eos;              // ids that end an answer unless a request ignores them
};

inline constexpr const char* kOrigin = "request";  // name of a body in errors
inline constexpr int kUsualTokens = 16;            // new tokens of a completion, OpenAI's default

/// A prompt that is longer than the model's context.
class ContextError final : public FieldError {
 public:
  using FieldError::FieldError;
};

struct RequestFields {
  Request request;  // of the first choice; each further one has the next seed
  int choices = 1;
};

// Those that read throw FieldError naming origin, field and value for a field of another type or out of range, a
// prompt beyond the context, an id outside the vocabulary, and text where there is no tokenizer. A field that is null
// is as if missing. Defaults are OpenAI's.

/// Reads a request of `batch`: what ReadAnswerFields does, and `prompt` (a text, a list of one text, or token ids),
/// `max_tokens` and `logprobs`.
RequestFields ReadRequestFields(const JsonObject& json, const ModelLimits& limits);

/// Reads `temperature`, `top_p`, `top_k`, `min_p`, `seed`, `stop`, `stop_token_ids`, `ignore_eos`,
/// `presence_penalty`, `frequency_penalty`, `repetition_penalty`, `logit_bias`, `n`, `priority` and `deadline_ms`.
RequestFields ReadAnswerFields(const JsonObject& json, const ModelLimits& limits);

/// Reads `prompt`, which may be several: a text, token ids, a list of texts, or a list of lists of ids.
std::vector<std::vector<int32_t>> ReadPrompts(const JsonObject& json, const ModelLimits& limits);

/// Throws ContextError where a prompt of so many tokens, which is what `field` became, is beyond the context.
void CheckPromptLength(const JsonObject& json, const std::string& field, size_t tokens, const ModelLimits& limits);

/// Reads a number of new tokens.
int ReadMaxTokens(const JsonObject& json, const char* key, int otherwise);

/// Reads a number of likeliest tokens that are reported with each token; -1: none.
int ReadLogprobs(const JsonObject& json, const char* key, int otherwise);

/// Reads a list of token ids.
std::vector<int32_t> ReadTokenIds(const JsonObject& json, const char* key, const ModelLimits& limits);

/// Whether `name` is a field that ReadRequestFields reads, or one that says nothing to an engine: `model`, `user`,
/// `metadata`, `stream`.
bool IsRequestField(std::string_view name);

}  // namespace runahead::protocol
