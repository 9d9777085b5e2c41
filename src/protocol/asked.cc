#include "protocol/asked.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <utility>

#include "protocol/api_error.h"
#include "protocol/random_id.h"
#include "protocol/unsupported_fields.h"

namespace runahead::protocol {
namespace {

constexpr size_t kMostAnswers = 1024;

/// Removes a seed of -1: to llama.cpp's clients it says that any will do.
void DropAnySeed(Json& body) {
  const auto seed = body.find("seed");
  if (seed != body.end() && *seed == -1) body.erase(seed);
}

void ReadStreaming(const JsonObject& json, Asked& asked) {
  asked.stream = json.Bool("stream", false);
  asked.return_progress = json.Bool("return_progress", false);
  if (!json.Has("stream_options")) return;
  const JsonObject options = json.Object("stream_options");
  asked.include_usage = options.Bool("include_usage", false);
  asked.continuous_usage = options.Bool("continuous_usage_stats", false) && asked.include_usage;
}

/// All but prompts, echoes and logprobs. `usual_tokens`: new tokens unless told.
Asked ReadCommon(Json& body, const ModelLimits& limits, bool chat, int usual_tokens) {
  const JsonObject json(body, kOrigin);
  RefuseUnsupported(body, chat);
  DropAnySeed(body);
  Asked asked;
  asked.chat = chat;
  ReadStreaming(json, asked);
  asked.fields = ReadAnswerFields(json, limits);
  GenerationOptions& generation = asked.fields.request.generation;
  if (!json.Has("seed")) generation.sampling.seed = RandomSeed();
  const int most = ReadMaxTokens(json, "max_tokens", usual_tokens);
  generation.max_new_tokens = ReadMaxTokens(json, "max_completion_tokens", most);
  return asked;
}

/// The texts of all prompts, whatever they were given as.
std::vector<std::string> TextsOf(const JsonObject& json, const Asked& asked, const ModelLimits& limits) {
  const Json& field = json.At("prompt");
  if (limits.tokenizer == nullptr) {
    throw FieldError("echo", std::string(kOrigin) + ": echo: " + limits.no_tokenizer + ", so there is no text");
  }
  std::vector<std::string> texts;
  for (size_t i = 0; i < asked.prompts.size(); ++i) {
    const bool is_list = field.is_array() && !field[0].is_number();
    const Json& prompt = is_list ? field[i] : field;
    texts.push_back(prompt.is_string() ? prompt.get<std::string>() : limits.tokenizer->Decode(asked.prompts[i]));
  }
  return texts;
}

}  // namespace

Asked ReadCompletion(Json body, const ModelLimits& limits) {
  Asked asked = ReadCommon(body, limits, /*chat=*/false, kUsualTokens);
  const JsonObject json(body, kOrigin);
  asked.fields.request.logprobs = ReadLogprobs(json, "logprobs", -1);
  const bool echo = json.Bool("echo", false);
  if (echo && asked.fields.request.logprobs >= 0) {
    constexpr int kStatus = 400;
    throw ApiError(kStatus, "echo with logprobs is not supported by this server: the prompt's tokens have none",
                   "unsupported_parameter", "echo");
  }
  asked.prompts = ReadPrompts(json, limits);
  if (asked.prompts.size() * static_cast<size_t>(asked.fields.choices) > kMostAnswers) {
    json.Refuse("n", fmt::format("expected {} answers at most for all prompts together", kMostAnswers));
  }
  if (echo) asked.echoes = TextsOf(json, asked, limits);
  return asked;
}

Asked ReadChat(Json body, const ModelLimits& limits) {
  Asked asked = ReadCommon(body, limits, /*chat=*/true, INT_MAX);
  const JsonObject json(body, kOrigin);
  if (json.Bool("logprobs", false)) {
    asked.fields.request.logprobs = ReadLogprobs(json, "top_logprobs", 0);
  } else if (json.Has("top_logprobs") && json.At("top_logprobs") != 0) {
    json.Refuse("top_logprobs", "expected logprobs to be true beside it");
  }
  return asked;
}

void AddConversation(const Json& body, std::vector<int32_t> prompt, const ModelLimits& limits, Asked& asked) {
  CheckPromptLength(JsonObject(body, kOrigin), "messages", prompt.size(), limits);
  if (prompt.empty())
    throw FieldError("messages", std::string(kOrigin) + ": messages: the template makes no text of them");
  const int64_t left = std::max<int64_t>(limits.context - static_cast<int64_t>(prompt.size()), 1);
  int& most = asked.fields.request.generation.max_new_tokens;
  most = static_cast<int>(std::min<int64_t>(most, left));
  asked.prompts.push_back(std::move(prompt));
}

}  // namespace runahead::protocol
