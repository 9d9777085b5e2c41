// What subcommands read from a model's folder.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "runahead/engine.h"
#include "runahead/model.h"
#include "runahead/tokenizer.h"

namespace runahead::cli {

/// The folder's tokenizer, or nothing when it has no tokenizer files. Throws what Tokenizer::Load throws.
std::optional<Tokenizer> LoadTokenizer(const std::filesystem::path& model);

/// The same for work that needs none: `refusal` says why there is no tokenizer, and is empty where there is one.
struct TokenizerOrRefusal {
  std::optional<Tokenizer> tokenizer;
  std::string refusal;
};
TokenizerOrRefusal TryTokenizer(const std::filesystem::path& model);

/// The model in `folder` with the context that `options` ask for. Warns where that is beyond what it was made for.
Model OpenModel(const std::string& folder, const EngineOptions& options);

/// Engine::Load with progress on stderr. Throws ConfigError where a launcher started several processes and `options`
/// know nothing of it.
Engine LoadEngine(const Model& model, EngineOptions options);

}  // namespace runahead::cli
