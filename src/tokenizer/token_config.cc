#include "tokenizer/token_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "runahead/error.h"

namespace runahead::tokenizer {
namespace {

constexpr std::array kNamedTokens = {"bos_token", "eos_token", "unk_token", "sep_token",
                                     "pad_token", "cls_token", "mask_token"};
constexpr std::array kListedTokens = {"additional_special_tokens", "extra_special_tokens"};

void SortById(std::vector<ConfiguredToken>& tokens) {
  std::stable_sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
}

// The object `added_tokens_decoder`: id to token.
void AppendDecoder(const JsonObject& config, std::vector<ConfiguredToken>& tokens) {
  if (!config.Has("added_tokens_decoder")) return;
  std::vector<ConfiguredToken> found;
  const JsonObject decoder = config.Object("added_tokens_decoder");
  for (const auto& [id, entry] : decoder.json().items()) {
    const std::string origin = fmt::format("{}: {}", decoder.origin(), id);
    const bool number = !id.empty() && id.size() < 9 && id.find_first_not_of("0123456789") == std::string::npos;
    if (!number) throw ConfigError(fmt::format("{}: expected an id", origin));
    found.push_back({LoadAddedToken(JsonObject(entry, origin)), std::stoi(id)});
  }
  SortById(found);
  tokens.insert(tokens.end(), found.begin(), found.end());
}

void AppendListed(const JsonObject& object, const char* list, std::vector<ConfiguredToken>& tokens) {
  if (!object.Has(list) || !object.At(list).is_array()) return;
  for (const Json& entry : object.At(list)) {
    AddedToken token;
    if (entry.is_string()) {
      token.content = entry.get<std::string>();
    } else {
      token = LoadAddedToken(JsonObject(entry, fmt::format("{}: {}", object.origin(), list)));
    }
    token.special = true;
    tokens.push_back({token, std::nullopt});
  }
}

}  // namespace

TokenConfig::SideFile::SideFile(const std::filesystem::path& path)
    : json_(std::filesystem::exists(path) ? LoadJson(path) : Json::object()), object_(json_, path.string()) {}

std::optional<AddedToken> TokenConfig::SideFile::Named(const char* key) const {
  if (!object_.Has(key)) return std::nullopt;
  AddedToken token;
  if (object_.At(key).is_string()) {
    token.content = object_.String(key);
  } else {
    token = LoadAddedToken(object_.Object(key));
  }
  token.special = true;
  return token;
}

TokenConfig::TokenConfig(const std::filesystem::path& model_dir)
    : config_(model_dir / "tokenizer_config.json"),
      special_map_(model_dir / "special_tokens_map.json"),
      added_(model_dir / "added_tokens.json") {}

TokenConfig::TokenConfig(Json config, const std::string& origin)
    : config_(std::move(config), origin), special_map_(Json::object(), origin), added_(Json::object(), origin) {}

std::vector<ConfiguredToken> TokenConfig::Tokens() const {
  std::vector<ConfiguredToken> tokens;
  AppendDecoder(config_.object(), tokens);
  std::vector<ConfiguredToken> added;
  for (const auto& [content, id] : added_.object().json().items()) {
    AddedToken token;
    token.content = content;
    added.push_back({token, LoadTokenId(id, fmt::format("{}: {}", added_.object().origin(), content))});
  }
  SortById(added);
  tokens.insert(tokens.end(), added.begin(), added.end());
  for (const char* name : kNamedTokens) {
    if (const auto token = Named(name)) tokens.push_back({*token, std::nullopt});
  }
  for (const SideFile* side : {&config_, &special_map_}) {
    for (const char* list : kListedTokens) AppendListed(side->object(), list, tokens);
  }
  return tokens;
}

std::optional<AddedToken> TokenConfig::Named(const char* name) const {
  const auto token = config_.Named(name);
  return token.has_value() ? token : special_map_.Named(name);
}

}  // namespace runahead::tokenizer
