#include "chat/chat_templates.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <system_error>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/gguf_tokens.h"
#include "base/model_folder.h"
#include "runahead/error.h"

namespace runahead::chat {
namespace {

using Templates = std::map<std::string, ChatTemplate>;

constexpr const char* kDefault = "default";
constexpr const char* kToolUse = "tool_use";

/// A dangling link counts as there: reading says where it leads.
bool Exists(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::exists(std::filesystem::symlink_status(path, error));
}

Json LoadIfThere(const std::filesystem::path& path) {
  if (!Exists(path)) return Json::object();
  Json json = LoadJson(path);
  (void)JsonObject(json, path.string());  // refuses all but objects
  return json;
}

ChatTemplate ReadTemplate(const std::filesystem::path& path) {
  ChatTemplate result{ReadFile(path), path.string()};
  try {
    (void)Json(result.text).dump();
  } catch (const Json::exception&) {
    throw ConfigError(path.string() + ": is not UTF-8");
  }
  return result;
}

Templates TemplatesInFiles(const std::filesystem::path& dir) {
  Templates found;
  const std::filesystem::path more = dir / "additional_chat_templates";
  std::error_code error;
  if (Exists(dir / "chat_template.jinja")) found[kDefault] = ReadTemplate(dir / "chat_template.jinja");
  for (const auto& entry : std::filesystem::directory_iterator(more, error)) {
    const std::filesystem::path& path = entry.path();
    if (path.extension() == ".jinja") found[path.stem().string()] = ReadTemplate(path);
  }
  return found;
}

Templates TemplatesInConfig(const JsonObject& config) {
  constexpr const char* kField = "chat_template";
  Templates found;
  if (!config.Has(kField)) return found;
  const Json& value = config.At(kField);
  const std::string origin = fmt::format("{}: {}", config.origin(), kField);
  if (value.is_string()) {
    found[kDefault] = {value.get<std::string>(), origin};
  } else if (value.is_object()) {
    const JsonObject named(value, origin);
    for (const auto& [name, text] : value.items()) {
      found[name] = {named.String(name.c_str()), fmt::format("{} '{}'", origin, name)};
    }
  } else if (value.is_array()) {
    for (const Json& entry : value) {
      const JsonObject named(entry, origin);
      const std::string name = named.String("name");
      found[name] = {named.String("template"), fmt::format("{} '{}'", origin, name)};
    }
  } else {
    config.Refuse(kField, "expected a text or a list of named ones");
  }
  return found;
}

/// A token as files write it: a text, or an object with its content. Nothing for other values.
std::optional<std::string> TokenText(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_object() || !value.contains("content") || !value["content"].is_string()) return std::nullopt;
  return value["content"].get<std::string>();
}

/// Every field *_token of `config`, and what `extra_special_tokens` names when it is an object.
Json TokensOf(const Json& config) {
  Json tokens = Json::object();
  for (const auto& [name, value] : config.items()) {
    if (!name.ends_with("_token")) continue;
    if (const auto text = TokenText(value)) tokens[name] = *text;
  }
  if (const auto extra = config.find("extra_special_tokens"); extra != config.end() && extra->is_object()) {
    for (const auto& [name, value] : extra->items()) {
      if (const auto text = TokenText(value)) tokens[name] = *text;
    }
  }
  return tokens;
}

}  // namespace

ChatTemplates::ChatTemplates(const std::filesystem::path& model_dir) : folder_(model_dir.string()) {
  if (IsGgufPath(model_dir)) {
    const Json config = GgufTokenizerConfig(GgufFile(model_dir));
    templates_ = TemplatesInConfig(JsonObject(config, folder_));
    special_tokens_ = TokensOf(config);
    return;
  }
  CheckModelFolder(model_dir, "");
  const std::filesystem::path config_path = model_dir / "tokenizer_config.json";
  Json config = LoadIfThere(config_path);
  templates_ = TemplatesInFiles(model_dir);
  if (templates_.empty()) templates_ = TemplatesInConfig(JsonObject(config, config_path.string()));
  if (!config.contains("added_tokens_decoder")) {  // as older versions of transformers wrote folders
    config.update(LoadIfThere(model_dir / "special_tokens_map.json"));
  }
  special_tokens_ = TokensOf(config);
}

ChatTemplate ChatTemplates::Choose(const std::string& name, bool tools) const {
  if (const auto found = templates_.find(name); found != templates_.end()) return found->second;
  if (name.find("{{") != std::string::npos || name.find("{%") != std::string::npos) return {name, "chat_template"};
  if (templates_.empty()) throw ConfigError(folder_ + ": the folder has no chat template");
  if (name.empty()) {
    if (const auto found = templates_.find(kToolUse); tools && found != templates_.end()) return found->second;
    if (const auto found = templates_.find(kDefault); found != templates_.end()) return found->second;
  }
  std::vector<std::string> names;
  for (const auto& [each, unused] : templates_) names.push_back(each);
  throw ConfigError(fmt::format("chat_template: expected one of {}, got '{}'", fmt::join(names, ", "), name));
}

}  // namespace runahead::chat
