#include "protocol/text_routes.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "protocol/api_error.h"
#include "protocol/http_status.h"

namespace runahead::protocol {
namespace {

using OrderedJson = nlohmann::ordered_json;

void NeedTokenizer(const ModelLimits& limits) {
  if (limits.tokenizer == nullptr) throw ApiError(kNotImplemented, limits.no_tokenizer, "no_tokenizer");
}

std::vector<int32_t> IdsOf(std::string_view body, const JsonObject& json, const ModelLimits& limits,
                           ChatPrompts& chat) {
  const bool prompt_special = json.Bool("add_special_tokens", true);
  const bool content_special = json.Bool("add_special", false);
  if (json.Has("messages")) return chat.Ids(body, json.json());
  const bool is_content = json.Has("content") && !json.Has("prompt");
  return limits.tokenizer->Encode(json.String(is_content ? "content" : "prompt"),
                                  is_content ? content_special : prompt_special);
}

}  // namespace

std::string Tokenized(std::string_view body, const Json& parsed, const ModelLimits& limits, ChatPrompts& chat,
                      TokenTexts& texts) {
  NeedTokenizer(limits);
  const JsonObject json(parsed, kOrigin);
  const bool with_pieces = json.Bool("with_pieces", false);
  const bool with_strings = json.Bool("return_token_strs", false);
  const std::vector<int32_t> ids = IdsOf(body, json, limits, chat);
  OrderedJson tokens = OrderedJson::array();
  OrderedJson strings = OrderedJson::array();
  for (const int32_t id : ids) {
    tokens.push_back(with_pieces ? OrderedJson{{"id", id}, {"piece", texts.Of(id)}} : OrderedJson(id));
    if (with_strings) strings.push_back(texts.Of(id));
  }
  OrderedJson answer = {{"count", ids.size()}, {"max_model_len", limits.context}, {"tokens", std::move(tokens)}};
  if (with_strings) answer["token_strs"] = std::move(strings);
  return answer.dump();
}

std::string Detokenized(const Json& parsed, const ModelLimits& limits) {
  NeedTokenizer(limits);
  const JsonObject json(parsed, kOrigin);
  const std::vector<int32_t> ids = ReadTokenIds(json, "tokens", limits);
  std::string text;
  try {
    text = limits.tokenizer->Decode(ids, /*skip_special=*/false);
  } catch (const ConfigError& error) {
    throw FieldError("tokens", std::string(kOrigin) + ": tokens: " + error.what());
  }
  const OrderedJson answer = {{"prompt", text}, {"content", text}};
  return answer.dump();
}

}  // namespace runahead::protocol
