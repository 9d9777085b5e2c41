#include "base/gguf_tokens.h"

#include <fmt/format.h>

#include <array>
#include <string>
#include <string_view>
#include <utility>

namespace runahead {
namespace {

/// Templates by name; the one without a name is the usual one.
Json Templates(const GgufFile& file) {
  constexpr std::string_view kKey = "tokenizer.chat_template";
  Json templates = Json::object();
  for (const auto& [key, value] : file.metadata()) {
    if (!key.starts_with(kKey)) continue;
    const std::string_view rest = key.substr(kKey.size());
    if (rest.empty()) {
      templates["default"] = file.Text(std::string(key));
    } else if (rest.starts_with('.')) {
      templates[std::string(rest.substr(1))] = file.Text(std::string(key));
    }
  }
  return templates;
}

}  // namespace

Json GgufTokenizerConfig(const GgufFile& file) {
  struct Name {
    const char* in_file;
    const char* in_config;
  };
  constexpr std::array<Name, 5> kNames = {{{"bos", "bos_token"},
                                           {"eos", "eos_token"},
                                           {"unknown", "unk_token"},
                                           {"padding", "pad_token"},
                                           {"seperator", "sep_token"}}};
  Json config = Json::object();
  if (file.Has(kGgufTokens)) {
    const GgufFile::Texts& tokens = file.TextArray(kGgufTokens);
    for (const Name& name : kNames) {
      const auto id = file.TokenId(fmt::format("tokenizer.ggml.{}_token_id", name.in_file), std::ssize(tokens));
      if (id) config[name.in_config] = tokens[static_cast<size_t>(*id)];
    }
  }
  for (const char* key : {"add_bos_token", "add_eos_token"}) {
    const std::string in_file = fmt::format("tokenizer.ggml.{}", key);
    if (file.Has(in_file)) config[key] = file.Bool(in_file, false);
  }
  if (Json templates = Templates(file); !templates.empty()) config["chat_template"] = std::move(templates);
  return config;
}

}  // namespace runahead
