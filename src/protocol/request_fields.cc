#include "protocol/request_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <climits>
#include <optional>
#include <utility>

#include "base/units.h"
#include "protocol/json_text.h"
#include "protocol/sampling_ranges.h"

namespace runahead::protocol {
namespace {

constexpr int kMostLogprobs = 20;
constexpr int kMostChoices = 128;
constexpr size_t kMostPrompts = 1024;
constexpr double kMostBias = 100;
// Each token of an answer is compared with all of them.
constexpr size_t kMostStops = 64;
constexpr int64_t kLongestStop = 1024;      // characters
constexpr double kShortestDeadline = 1e-3;  // ms
constexpr double kLongestDeadline = 1e12;   // ms

/// Throws ConfigError about `value`, which is a part of a field: "prompt[3]".
[[noreturn]] void RefusePart(const JsonObject& json, const std::string& part, const Json& value,
                             const std::string& what) {
  const Json alone = {{part, value}};
  JsonObject(alone, json.origin()).Refuse(part.c_str(), what);
}

double NumberFrom(const JsonObject& json, const char* key, double min, double max, double otherwise) {
  const double value = json.Number(key, otherwise);
  if (!(value >= min && value <= max)) json.Refuse(key, fmt::format("expected a number from {} to {}", min, max));
  return value;
}

/// Token `i` of `list`, which is what `name` names.
int32_t TokenIdAt(const JsonObject& json, const std::string& name, const Json& list, size_t i,
                  const ModelLimits& limits) {
  const Json& value = list[i];
  const std::optional<int64_t> id = WholeNumber(value);
  if (id && *id >= 0 && *id < limits.vocab) return static_cast<int32_t>(*id);
  RefusePart(json, fmt::format("{}[{}]", name, i), value,
             fmt::format("expected a token id from 0 to {}", limits.vocab - 1));
}

std::vector<int32_t> TokenIds(const JsonObject& json, const std::string& name, const Json& list,
                              const ModelLimits& limits) {
  std::vector<int32_t> ids(list.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = TokenIdAt(json, name, list, i, limits);
  return ids;
}

/// The ids of a text, which is what `name` names.
std::vector<int32_t> IdsOfText(const JsonObject& json, const std::string& name, const Json& text,
                               const ModelLimits& limits) {
  if (limits.tokenizer == nullptr) {
    throw FieldError(
        name, fmt::format("{}: {}: {}, so only token ids can be used", json.origin(), name, limits.no_tokenizer));
  }
  try {
    return limits.tokenizer->Encode(text.get_ref<const std::string&>());
  } catch (const ConfigError& error) {
    throw FieldError(name, fmt::format("{}: {}: {}", json.origin(), name, error.what()));
  }
}

/// The ids of `value`, a text or a list of ids, which is what `name` names.
std::vector<int32_t> PromptOf(const JsonObject& json, const std::string& name, const Json& value,
                              const ModelLimits& limits) {
  if (!value.is_string() && !value.is_array()) {
    RefusePart(json, name, value, "expected a text or a list of token ids");
  }
  std::vector<int32_t> ids =
      value.is_string() ? IdsOfText(json, name, value, limits) : TokenIds(json, name, value, limits);
  if (ids.empty()) RefusePart(json, name, value, "expected at least one token");
  CheckPromptLength(json, name, ids.size(), limits);
  return ids;
}

std::vector<int32_t> ReadPrompt(const JsonObject& json, const ModelLimits& limits) {
  const Json& field = json.At("prompt");
  if (!field.is_array() || field.empty() || field[0].is_number()) return PromptOf(json, "prompt", field, limits);
  if (field.size() == 1 && field[0].is_string()) return PromptOf(json, "prompt", field[0], limits);
  json.Refuse("prompt", "expected one prompt, a text or a list of token ids");
}

/// A text that ends an answer, which is what `name` names.
std::string StopOf(const JsonObject& json, const std::string& name, const Json& value) {
  const bool right = value.is_string() && !value.get_ref<const std::string&>().empty();
  if (!right) RefusePart(json, name, value, "expected a text, not empty");
  if (Characters(value.get_ref<const std::string&>()) > kLongestStop) {
    RefusePart(json, name, value, fmt::format("expected a text of {} characters at most", kLongestStop));
  }
  return value.get<std::string>();
}

std::vector<std::string> ReadStops(const JsonObject& json, const ModelLimits& limits) {
  if (!json.Has("stop")) return {};
  const Json& field = json.At("stop");
  std::vector<std::string> stops;
  if (field.is_array()) {
    if (field.size() > kMostStops) json.Refuse("stop", fmt::format("expected {} texts at most", kMostStops));
    for (size_t i = 0; i < field.size(); ++i) stops.push_back(StopOf(json, fmt::format("stop[{}]", i), field[i]));
  } else {
    if (!field.is_string()) json.Refuse("stop", "expected a text, not empty, or a list of texts");
    stops.push_back(StopOf(json, "stop", field));
  }
  if (!stops.empty() && limits.tokenizer == nullptr) {
    throw FieldError("stop",
                     fmt::format("{}: stop: {}, so there is no text to stop at", json.origin(), limits.no_tokenizer));
  }
  return stops;
}

std::vector<std::pair<int32_t, float>> ReadBias(const JsonObject& json, const ModelLimits& limits) {
  if (!json.Has("logit_bias")) return {};
  if (!json.At("logit_bias").is_object()) json.Refuse("logit_bias", "expected an object from token ids to numbers");
  std::vector<std::pair<int32_t, float>> biases;
  for (const auto& [key, value] : json.At("logit_bias").items()) {
    int64_t id = -1;
    const char* const last = key.data() + key.size();
    const auto [end, error] = std::from_chars(key.data(), last, id);
    if (error != std::errc() || end != last || id < 0 || id >= limits.vocab) {
      RefusePart(json, "logit_bias", Json(key),
                 fmt::format("expected token ids from 0 to {} as keys", limits.vocab - 1));
    }
    const auto bias = value.is_number() ? value.get<double>() : kMostBias + 1;
    if (!(bias >= -kMostBias && bias <= kMostBias)) {
      RefusePart(json, fmt::format("logit_bias[{}]", key), value,
                 fmt::format("expected a number from {} to {}", -kMostBias, kMostBias));
    }
    biases.emplace_back(static_cast<int32_t>(id), static_cast<float>(bias));
  }
  return biases;
}

SamplingOptions ReadSampling(const JsonObject& json) {
  SamplingOptions sampling;
  sampling.temperature = NumberFrom(json, "temperature", 0, kHottest, 1);
  sampling.top_k = static_cast<int>(json.Int("top_k", 0, INT32_MAX, 0));
  sampling.top_p = NumberFrom(json, "top_p", kSmallestTopP, 1, 1);
  sampling.min_p = NumberFrom(json, "min_p", 0, 1, 0);
  sampling.seed = static_cast<uint64_t>(json.Int("seed", 0, INT64_MAX, 0));
  sampling.repetition_penalty = NumberFrom(json, "repetition_penalty", kSmallestPenalty, kLargestPenalty, 1);
  sampling.presence_penalty = NumberFrom(json, "presence_penalty", -kMostPresence, kMostPresence, 0);
  sampling.frequency_penalty = NumberFrom(json, "frequency_penalty", -kMostPresence, kMostPresence, 0);
  return sampling;
}

}  // namespace

RequestFields ReadAnswerFields(const JsonObject& json, const ModelLimits& limits) {
  RequestFields fields;
  Request& request = fields.request;
  request.generation.sampling = ReadSampling(json);
  request.generation.stop = ReadStops(json, limits);
  if (json.Has("stop_token_ids")) request.generation.stop_ids = ReadTokenIds(json, "stop_token_ids", limits);
  if (!json.Bool("ignore_eos", false)) request.generation.eos = limits.eos;
  request.logit_bias = ReadBias(json, limits);
  request.priority = static_cast<int>(json.Int("priority", -INT32_MAX, INT32_MAX, 0));
  if (json.Has("deadline_ms")) {
    request.ttft_deadline_s = NumberFrom(json, "deadline_ms", kShortestDeadline, kLongestDeadline, 0) / kMsPerSecond;
  }
  fields.choices = static_cast<int>(json.Int("n", 1, kMostChoices, 1));
  return fields;
}

RequestFields ReadRequestFields(const JsonObject& json, const ModelLimits& limits) {
  std::vector<int32_t> prompt = ReadPrompt(json, limits);
  RequestFields fields = ReadAnswerFields(json, limits);
  fields.request.prompt = std::move(prompt);
  fields.request.generation.max_new_tokens = ReadMaxTokens(json, "max_tokens", kUsualTokens);
  fields.request.logprobs = ReadLogprobs(json, "logprobs", -1);
  return fields;
}

std::vector<std::vector<int32_t>> ReadPrompts(const JsonObject& json, const ModelLimits& limits) {
  const Json& field = json.At("prompt");
  if (!field.is_array() || field.empty() || field[0].is_number()) return {PromptOf(json, "prompt", field, limits)};
  if (field.size() > kMostPrompts) json.Refuse("prompt", fmt::format("expected {} prompts at most", kMostPrompts));
  std::vector<std::vector<int32_t>> prompts;
  for (size_t i = 0; i < field.size(); ++i) {
    prompts.push_back(PromptOf(json, fmt::format("prompt[{}]", i), field[i], limits));
  }
  return prompts;
}

void CheckPromptLength(const JsonObject& json, const std::string& field, size_t tokens, const ModelLimits& limits) {
  if (static_cast<int64_t>(tokens) <= limits.context) return;
  throw ContextError(field, fmt::format("{}: {}: its {} tokens are more than the model's context of {}",
                                        json.origin(), field, tokens, limits.context));
}

int ReadMaxTokens(const JsonObject& json, const char* key, int otherwise) {
  return static_cast<int>(json.Int(key, 1, INT32_MAX, otherwise));
}

int ReadLogprobs(const JsonObject& json, const char* key, int otherwise) {
  return static_cast<int>(json.Int(key, 0, kMostLogprobs, otherwise));
}

std::vector<int32_t> ReadTokenIds(const JsonObject& json, const char* key, const ModelLimits& limits) {
  if (!json.At(key).is_array()) json.Refuse(key, "expected a list of token ids");
  return TokenIds(json, key, json.At(key), limits);
}

bool IsRequestField(std::string_view name) {
  constexpr std::array<std::string_view, 22> kFields = {"prompt",
                                                        "max_tokens",
                                                        "temperature",
                                                        "top_p",
                                                        "top_k",
                                                        "min_p",
                                                        "seed",
                                                        "stop",
                                                        "stop_token_ids",
                                                        "ignore_eos",
                                                        "presence_penalty",
                                                        "frequency_penalty",
                                                        "repetition_penalty",
                                                        "logit_bias",
                                                        "logprobs",
                                                        "n",
                                                        "priority",
                                                        "deadline_ms",
                                                        "model",
                                                        "user",
                                                        "metadata",
                                                        "stream"};
  return std::find(kFields.begin(), kFields.end(), name) != kFields.end();
}

}  // namespace runahead::protocol
