// What subcommands read from a model's folder.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "runahead/engine.h"
#include "runahead/tokenizer.h"

namespace runahead::cli {

/// The folder's tokenizer, or nothing when it has no tokenizer files. Throws what Tokenizer::Load throws.
std::optional<Tokenizer> LoadTokenizer(const std::filesystem::path& model);

/// Engine::Load with progress on stderr.
Engine LoadEngine(const std::filesystem::path& model, EngineOptions options);

}  // namespace runahead::cli
