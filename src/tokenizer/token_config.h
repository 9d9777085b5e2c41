// What the files beside a tokenizer say about its special tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "tokenizer/added_tokens.h"

namespace runahead::tokenizer {

struct ConfiguredToken {
  AddedToken token;
  std::optional<int32_t> id;  // none: the files do not say it
};

/// tokenizer_config.json, special_tokens_map.json and added_tokens.json of a model's folder, as far as they exist.
/// Stays where it is made.
class TokenConfig {
 public:
  /// Throws IoError and ConfigError.
  explicit TokenConfig(const std::filesystem::path& model_dir);
  /// What another file says in the words of tokenizer_config.json; `origin` opens errors.
  TokenConfig(Json config, const std::string& origin);

  /// Every token that the files name, in the order in which transformers adds them; some more than once. Throws
  /// ConfigError.
  [[nodiscard]] std::vector<ConfiguredToken> Tokens() const;

  /// The token that a field such as bos_token names. Throws ConfigError.
  [[nodiscard]] std::optional<AddedToken> Named(const char* name) const;

  /// A switch of tokenizer_config.json. Throws ConfigError.
  [[nodiscard]] bool Bool(const char* name, bool otherwise) const { return config_.object().Bool(name, otherwise); }

 private:
  /// One file; empty where it does not exist.
  class SideFile {
   public:
    explicit SideFile(const std::filesystem::path& path);
    SideFile(Json json, const std::string& origin) : json_(std::move(json)), object_(json_, origin) {}

    SideFile(const SideFile&) = delete;
    SideFile& operator=(const SideFile&) = delete;

    [[nodiscard]] const JsonObject& object() const { return object_; }
    [[nodiscard]] std::optional<AddedToken> Named(const char* key) const;

   private:
    Json json_;
    JsonObject object_;
  };

  SideFile config_;
  SideFile special_map_;
  SideFile added_;  // token to id
};

}  // namespace runahead::tokenizer
