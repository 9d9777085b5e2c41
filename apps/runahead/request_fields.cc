#include "request_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <climits>
#include <utility>

#include "runahead/error.h"
#include "sampling_ranges.h"

namespace runahead::cli {
namespace {

constexpr int kUsualTokens = 16;  // OpenAI's default
constexpr int kMostLogprobs = 20;
constexpr int kMostChoices = 128;
constexpr double kMostBias = 100;
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

/// Element `i` of the list `key`, which must be a token of the model.
int32_t TokenIdAt(const JsonObject& json, const char* key, size_t i, const ModelLimits& limits) {
  const Json& value = json.At(key)[i];
  const bool right = value.is_number_unsigned() && value.get<uint64_t>() < static_cast<uint64_t>(limits.vocab);
  if (right) return value.get<int32_t>();
  RefusePart(json, fmt::format("{}[{}]", key, i), value,
             fmt::format("expected a token id from 0 to {}", limits.vocab - 1));
}

std::vector<int32_t> TokenIds(const JsonObject& json, const char* key, const ModelLimits& limits) {
  std::vector<int32_t> ids(json.At(key).size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = TokenIdAt(json, key, i, limits);
  return ids;
}

std::vector<int32_t> PromptOf(const std::string& text, const JsonObject& json, const ModelLimits& limits) {
  if (limits.tokenizer == nullptr) {
    throw ConfigError(
        fmt::format("{}: prompt: {}, so only token ids can be used", json.origin(), limits.no_tokenizer));
  }
  try {
    return limits.tokenizer->Encode(text);
  } catch (const ConfigError& error) {
    throw ConfigError(fmt::format("{}: prompt: {}", json.origin(), error.what()));
  }
}

std::vector<int32_t> ReadPrompt(const JsonObject& json, const ModelLimits& limits) {
  const Json& field = json.At("prompt");
  const bool one_text = field.is_array() && field.size() == 1 && field[0].is_string();
  if (!field.is_string() && !field.is_array()) json.Refuse("prompt", "expected a text or a list of token ids");
  const bool several = field.is_array() && !field.empty() && !one_text && !field[0].is_number();
  if (several) json.Refuse("prompt", "expected one prompt, a text or a list of token ids");
  std::vector<int32_t> prompt;
  if (field.is_string()) {
    prompt = PromptOf(field.get<std::string>(), json, limits);
  } else {
    prompt = one_text ? PromptOf(field[0].get<std::string>(), json, limits) : TokenIds(json, "prompt", limits);
  }
  if (prompt.empty()) json.Refuse("prompt", "expected at least one token");
  if (static_cast<int64_t>(prompt.size()) > limits.context) {
    throw ConfigError(fmt::format("{}: prompt: its {} tokens are more than the model's context of {}", json.origin(),
                                  prompt.size(), limits.context));
  }
  return prompt;
}

std::vector<std::string> ReadStops(const JsonObject& json, const ModelLimits& limits) {
  if (!json.Has("stop")) return {};
  const Json& field = json.At("stop");
  const auto is_text = [](const Json& value) {
    return value.is_string() && !value.get_ref<const std::string&>().empty();
  };
  std::vector<std::string> stops;
  if (field.is_array()) {
    for (size_t i = 0; i < field.size(); ++i) {
      if (!is_text(field[i])) RefusePart(json, fmt::format("stop[{}]", i), field[i], "expected a text, not empty");
      stops.push_back(field[i].get<std::string>());
    }
  } else {
    if (!is_text(field)) json.Refuse("stop", "expected a text, not empty, or a list of texts");
    stops.push_back(field.get<std::string>());
  }
  if (!stops.empty() && limits.tokenizer == nullptr) {
    throw ConfigError(
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

RequestFields ReadRequestFields(const JsonObject& json, const ModelLimits& limits) {
  constexpr double kMsPerSecond = 1000;
  RequestFields fields;
  Request& request = fields.request;
  request.prompt = ReadPrompt(json, limits);
  request.generation.max_new_tokens = static_cast<int>(json.Int("max_tokens", 1, INT32_MAX, kUsualTokens));
  request.generation.sampling = ReadSampling(json);
  request.generation.stop = ReadStops(json, limits);
  if (json.Has("stop_token_ids")) {
    if (!json.At("stop_token_ids").is_array()) json.Refuse("stop_token_ids", "expected a list of token ids");
    request.generation.stop_ids = TokenIds(json, "stop_token_ids", limits);
  }
  if (!json.Bool("ignore_eos", false)) request.generation.eos = limits.eos;
  request.logit_bias = ReadBias(json, limits);
  request.logprobs = static_cast<int>(json.Int("logprobs", 0, kMostLogprobs, -1));
  request.priority = static_cast<int>(json.Int("priority", INT32_MIN, INT32_MAX, 0));
  if (json.Has("deadline_ms")) {
    request.ttft_deadline_s = NumberFrom(json, "deadline_ms", kShortestDeadline, kLongestDeadline, 0) / kMsPerSecond;
  }
  fields.choices = static_cast<int>(json.Int("n", 1, kMostChoices, 1));
  return fields;
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

}  // namespace runahead::cli
