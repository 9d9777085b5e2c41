// What a GGUF file says of its tokens, in the words of the files that tokenizers of Hugging Face folders have.
#pragma once

#include "base/gguf_file.h"
#include "base/json.h"

namespace runahead {

inline constexpr const char* kGgufTokens = "tokenizer.ggml.tokens";

/// As tokenizer_config.json: bos_token, eos_token and others that the file names, whether a text gets them, and the
/// chat templates. Throws ConfigError naming file, key and value.
Json GgufTokenizerConfig(const GgufFile& file);

}  // namespace runahead
