// Reads a SentencePiece model, and from the files beside it what changes its ids.
#include <fmt/format.h>

#include "base/file.h"
#include "runahead/error.h"
#include "tokenizer/bpe.h"
#include "tokenizer/decode_stages.h"
#include "tokenizer/sentencepiece_file.h"
#include "tokenizer/sentencepiece_normalizer.h"
#include "tokenizer/token_config.h"
#include "tokenizer/tokenizer_parts.h"
#include "tokenizer/unigram.h"

namespace runahead::tokenizer {
namespace {

class SentencePieceLoader {
 public:
  SentencePieceLoader(const SentencePieceFile& file, const TokenConfig& config, const std::string& origin)
      : origin_(origin), file_(file), config_(config) {}

  std::shared_ptr<const TokenizerParts> Run() {
    parts_->origin = origin_;
    parts_->normalizer = MakeSentencePieceNormalizer(file_, WhereDummySpaces(), origin_);
    if (file_.model == PieceModel::kBpe) {
      parts_->model = std::make_unique<ModelOf<Bpe>>(file_, origin_);
    } else {
      parts_->model = std::make_unique<ModelOf<Unigram>>(file_, origin_);
    }
    parts_->skipped_tokens_divide = true;
    parts_->decoder = MakePieceDecoder(
        {file_.byte_fallback, file_.add_dummy_prefix || file_.remove_extra_spaces, file_.remove_extra_spaces});
    AddTokens();
    parts_->IndexTokens();
    NameUnknown();
    SetSpecial();
    return parts_;
  }

 private:
  // As transformers has it: tokenizers count as "legacy" where their configuration does not say otherwise.
  [[nodiscard]] DummySpaces WhereDummySpaces() const {
    if (!file_.add_dummy_prefix || !config_.Bool("add_prefix_space", true)) return DummySpaces::kNone;
    return config_.Bool("legacy", true) ? DummySpaces::kEverywhere : DummySpaces::kFirst;
  }

  // Control pieces are found in a text as it is. User-defined pieces of a BPE model are found in the normalized text;
  // those of a unigram model compete with the other pieces.
  void AddTokens() {
    for (size_t id = 0; id < file_.pieces.size(); ++id) {
      const Piece& piece = file_.pieces[id];
      AddedToken token;
      token.content = piece.text;
      token.special = piece.kind == PieceKind::kControl;
      token.normalized = piece.kind == PieceKind::kUserDefined;
      if (token.special || (token.normalized && file_.model == PieceModel::kBpe)) static_cast<void>(Add(token));
    }
    for (const ConfiguredToken& configured : config_.Tokens()) {
      AddedToken token = configured.token;
      token.normalized = false;
      if (token.content.empty()) continue;
      const int32_t id = Add(token);
      if (id != configured.id.value_or(id)) {
        throw ConfigError(fmt::format("{}: token \"{}\" has the id {} here, the files beside it say {}", origin_,
                                      token.content, id, *configured.id));
      }
    }
    parts_->added_tokens.Finish(nullptr);
  }

  int32_t Add(const AddedToken& token) { return parts_->added_tokens.Add(token, parts_->model->vocab()); }

  // The unknown token decodes to a sign of its own, unless special tokens are left out.
  void NameUnknown() {
    for (size_t id = 0; id < file_.pieces.size(); ++id) {
      if (file_.pieces[id].kind == PieceKind::kUnknown) {
        parts_->unknown_surface = file_.unknown_surface;
        parts_->tokens[id].text = parts_->unknown_surface;
      }
    }
  }

  void SetSpecial() {
    parts_->bos_id = IdOf("bos_token", file_.bos_piece);
    parts_->eos_id = IdOf("eos_token", file_.eos_piece);
    std::vector<int32_t> items{Template::kText};
    if (parts_->bos_id.has_value() && config_.Bool("add_bos_token", true))
      items.insert(items.begin(), *parts_->bos_id);
    if (parts_->eos_id.has_value() && config_.Bool("add_eos_token", false)) items.push_back(*parts_->eos_id);
    parts_->special = Template(std::move(items));
  }

  // The token that the configuration names, or the control piece that the model names.
  [[nodiscard]] std::optional<int32_t> IdOf(const char* name, std::string_view piece) const {
    if (const auto token = config_.Named(name); token.has_value() && !token->content.empty()) {
      return parts_->added_tokens.Find(token->content);
    }
    const int32_t id = parts_->added_tokens.Find(piece);
    return id != kNoToken && parts_->added_tokens.IsSpecial(piece) ? std::optional(id) : std::nullopt;
  }

  const std::string& origin_;
  const SentencePieceFile& file_;
  const TokenConfig& config_;
  std::shared_ptr<TokenizerParts> parts_ = std::make_shared<TokenizerParts>();
};

}  // namespace

std::shared_ptr<const TokenizerParts> LoadTokenizerModel(const std::filesystem::path& model_dir) {
  const std::string origin = (model_dir / "tokenizer.model").string();
  const std::string bytes = ReadFile(origin);
  return MakeTokenizer(ParseSentencePiece(bytes, origin), TokenConfig(model_dir), origin);
}

std::shared_ptr<const TokenizerParts> MakeTokenizer(const SentencePieceFile& file, const TokenConfig& config,
                                                    const std::string& origin) {
  return SentencePieceLoader(file, config, origin).Run();
}

}  // namespace runahead::tokenizer
