#include "model_folder.h"

#include <fmt/format.h>

#include "base/gguf_tokens.h"
#include "base/model_folder.h"
#include "group_flags.h"
#include "output.h"
#include "runahead/error.h"

namespace runahead::cli {
std::optional<Tokenizer> LoadTokenizer(const std::filesystem::path& model) {
  if (IsGgufPath(model)) {
    return GgufFile(model).Has(kGgufTokens) ? std::optional(Tokenizer::Load(model)) : std::nullopt;
  }
  CheckModelFolder(model, "");
  // A dangling link counts as there: loading says where it leads.
  std::error_code error;
  const auto exists = [&](const char* name) {
    return std::filesystem::exists(std::filesystem::symlink_status(model / name, error));
  };
  if (!exists("tokenizer.json") && !exists("tokenizer.model")) {
    CheckModelFolder(model);
    return std::nullopt;
  }
  return Tokenizer::Load(model);
}

TokenizerOrRefusal TryTokenizer(const std::filesystem::path& model) {
  try {
    TokenizerOrRefusal result{LoadTokenizer(model), ""};
    if (!result.tokenizer) result.refusal = model.string() + ": the folder has no tokenizer";
    return result;
  } catch (const Error& error) {
    return {std::nullopt, error.what()};
  }
}

Model OpenModel(const std::string& folder, const EngineOptions& options) {
  Model model(folder);
  if (options.context == 0) return model;
  Model other = model.WithContext(options.context);
  if (options.context > model.max_positions()) {
    Warn(fmt::format(
        "--context: {} tokens are more than the {} that {} was made for; what lies beyond may be of little use",
        options.context, model.max_positions(), folder));
  }
  return other;
}

Engine LoadEngine(const Model& model, EngineOptions options) {
  if (options.group == nullptr) RefuseGroup();
  Progress progress("loading the weights");
  options.on_load_progress = [&progress](double share) { progress.Show(share); };
  return Engine::Load(model, options);
}

}  // namespace runahead::cli
