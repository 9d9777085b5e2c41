// Reads tokenizer.json, and from the files beside it what changes its ids.
#include <fmt/format.h>

#include "runahead/error.h"
#include "tokenizer/bpe.h"
#include "tokenizer/token_config.h"
#include "tokenizer/tokenizer_parts.h"

namespace runahead::tokenizer {
namespace {

std::unique_ptr<const Model> LoadModel(const JsonObject& file) {
  const JsonObject model = file.Object("model");
  // Older files leave the type out; only BPE has merges.
  const std::string type = model.String("type", model.Has("merges") ? "BPE" : "");
  if (type != "BPE") RefuseType(model, "model");
  return std::make_unique<ModelOf<Bpe>>(model);
}

class JsonLoader {
 public:
  JsonLoader(const JsonObject& file, const TokenConfig& config) : file_(file), config_(config) {}

  std::shared_ptr<const TokenizerParts> Run() {
    parts_->origin = file_.origin();
    parts_->normalizer = LoadNormalizer(file_, "normalizer");
    parts_->pre_tokenizer = LoadPreTokenizer(file_, "pre_tokenizer");
    parts_->model = LoadModel(file_);
    parts_->decoder = LoadDecoder(file_, "decoder");
    AddTokens();
    for (const ConfiguredToken& configured : config_.Tokens()) AddMissing(configured.token);
    parts_->added_tokens.Finish(parts_->normalizer.get());
    parts_->IndexTokens();
    parts_->bos_id = IdOfName("bos_token");
    parts_->eos_id = IdOfName("eos_token");
    parts_->special = LoadPostProcessor(file_, "post_processor");
    parts_->CheckSpecial();
    if (!parts_->bos_id.has_value() && parts_->special.items()[0] != Template::kText) {
      parts_->bos_id = parts_->special.items()[0];
    }
    return parts_;
  }

 private:
  int32_t Add(const AddedToken& token) { return parts_->added_tokens.Add(token, parts_->model->vocab()); }

  void AddTokens() {
    if (!file_.Has("added_tokens")) return;
    for (const JsonObject& entry : ObjectArray(file_, "added_tokens")) {
      const auto written = static_cast<int32_t>(entry.Int("id", 0, kMaxTokenId));
      const AddedToken token = LoadAddedToken(entry);
      if (token.content.empty()) continue;
      if (const int32_t id = Add(token); id != written) {
        entry.Refuse("id", fmt::format("token \"{}\" has the id {} in the vocabulary", token.content, id));
      }
    }
  }

  // Tokens that only the configuration knows are added behind the others, as transformers does.
  void AddMissing(const AddedToken& token) {
    if (token.content.empty() || parts_->added_tokens.Find(token.content) != kNoToken) return;
    static_cast<void>(Add(token));
  }

  [[nodiscard]] std::optional<int32_t> IdOfName(const char* name) const {
    const auto token = config_.Named(name);
    if (!token.has_value() || token->content.empty()) return std::nullopt;
    return parts_->added_tokens.Find(token->content);
  }

  const JsonObject& file_;
  const TokenConfig& config_;
  std::shared_ptr<TokenizerParts> parts_ = std::make_shared<TokenizerParts>();
};

}  // namespace

std::shared_ptr<const TokenizerParts> LoadTokenizerJson(const Json& json, const std::filesystem::path& model_dir) {
  const JsonObject file(json, (model_dir / "tokenizer.json").string());
  return MakeTokenizer(file, TokenConfig(model_dir));
}

std::shared_ptr<const TokenizerParts> MakeTokenizer(const JsonObject& file, const TokenConfig& config) {
  return JsonLoader(file, config).Run();
}

}  // namespace runahead::tokenizer
