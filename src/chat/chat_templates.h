// The chat templates of a model's folder: which there are, and which one is taken.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "base/json.h"

namespace runahead::chat {

/// A Jinja template, and where it came from: it opens every error.
struct ChatTemplate {
  std::string text;
  std::string origin;
};

/// What a model's folder says about chats, found as transformers finds it. Immutable.
class ChatTemplates {
 public:
  /// Reads `chat_template` of tokenizer_config.json (a text, or several by name), or instead of it, where there are
  /// such files, `chat_template.jinja` (named default) and `additional_chat_templates/NAME.jinja`. A GGUF file in
  /// place of a folder has them in its metadata. Throws IoError for a file that cannot be read and ConfigError for
  /// content that is broken.
  explicit ChatTemplates(const std::filesystem::path& model_dir);

  [[nodiscard]] bool empty() const { return templates_.empty(); }

  /// The template that `name` names; an empty one is "tool_use" where there are tools and such a template, and
  /// "default" otherwise. A `name` with Jinja's braces is a template itself. Throws ConfigError naming the templates
  /// that there are.
  [[nodiscard]] ChatTemplate Choose(const std::string& name, bool tools) const;

  /// Special tokens as variables of templates: an object of texts, such as {"bos_token": "<s>"}.
  [[nodiscard]] const Json& special_tokens() const { return special_tokens_; }

 private:
  std::string folder_;
  std::map<std::string, ChatTemplate> templates_;  // key: name
  Json special_tokens_ = Json::object();
};

}  // namespace runahead::chat
