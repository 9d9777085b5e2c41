// What subcommands read from a model's folder, and from other inputs.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "runahead/engine.h"
#include "runahead/tokenizer.h"

namespace runahead::cli {

/// The folder's tokenizer, or nothing when it has no tokenizer files. Throws what Tokenizer::Load throws.
std::optional<Tokenizer> LoadTokenizer(const std::filesystem::path& model);

/// The ids that end a text, after the model's files and its tokenizer (which may be null).
std::vector<int32_t> EndTokens(const std::filesystem::path& model, const Tokenizer* tokenizer);

/// Engine::Load with progress on stderr.
Engine LoadEngine(const std::filesystem::path& model, EngineOptions options);

/// The bytes of a file, or of stdin for "-". Throws IoError.
std::string ReadInput(const std::string& path);

}  // namespace runahead::cli
