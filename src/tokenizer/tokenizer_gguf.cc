// Reads the tokenizer of a GGUF file, as the tokenizer.json or the SentencePiece model that it was made from.
#include <fmt/format.h>

#include <array>
#include <cmath>

#include "base/gguf_tokens.h"
#include "runahead/error.h"
#include "tokenizer/tokenizer_parts.h"
#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

constexpr const char* kKind = "tokenizer.ggml.model";
constexpr const char* kWords = "tokenizer.ggml.pre";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kScores = "tokenizer.ggml.scores";
constexpr const char* kMerges = "tokenizer.ggml.merges";

/// How a byte-level vocabulary cuts a text into words, as files name it.
struct Words {
  std::string_view name;
  const char* pattern = nullptr;  // null: GPT-2's
  bool single_digits = false;     // before that
  bool normalized = false;        // to NFC
  bool ignore_merges = false;
  bool adds_bos = false;  // unless the file says otherwise
};
constexpr const char* kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::array<Words, 10> kKnownWords = {{
    {.name = "llama-bpe", .pattern = kLlama3Pattern, .ignore_merges = true, .adds_bos = true},
    {.name = "llama3", .pattern = kLlama3Pattern, .ignore_merges = true, .adds_bos = true},
    {.name = "falcon3", .pattern = kLlama3Pattern, .ignore_merges = true, .adds_bos = true},
    {.name = "qwen2", .pattern = kQwen2Pattern, .normalized = true},
    {.name = "deepseek-r1-qwen", .pattern = kQwen2Pattern, .normalized = true},
    {.name = "tekken", .pattern = kTekkenPattern, .ignore_merges = true, .adds_bos = true},
    {.name = "gpt-2"},
    {.name = "olmo"},
    {.name = "smollm", .single_digits = true},
    {.name = "refact", .single_digits = true},
}};

/// A token for one line of an error.
std::string Shown(std::string_view token) {
  constexpr size_t kMaxShown = 80;
  return Json(token.substr(0, kMaxShown)).dump(-1, ' ', true, Json::error_handler_t::replace);
}

const Words& WordsOf(const GgufFile& file) {
  const std::string_view name = file.Text(kWords);
  std::string known;
  for (const Words& words : kKnownWords) {
    if (words.name == name) return words;
    known += (known.empty() ? "" : ", ") + std::string(words.name);
  }
  file.Refuse(kWords, "expected one of " + known);
}

Json PreTokenizerOf(const Words& words) {
  Json stages = Json::array();
  if (words.single_digits) stages.push_back({{"type", "Digits"}, {"individual_digits", true}});
  if (words.pattern != nullptr) {
    stages.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", words.pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  stages.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", words.pattern == nullptr}});
  return {{"type", "Sequence"}, {"pretokenizers", std::move(stages)}};
}

class GgufLoader {
 public:
  explicit GgufLoader(const GgufFile& file) : file_(file), tokens_(file.TextArray(kGgufTokens)) {
    CheckTexts(kGgufTokens, tokens_);
    if (file.Has(kTypes) && file.NumberArray(kTypes).size() != tokens_.size()) {
      file.Refuse(kTypes, fmt::format("expected one for each of {} tokens", tokens_.size()));
    }
  }

  std::shared_ptr<const TokenizerParts> Run() const {
    const std::string_view kind = file_.Text(kKind);
    if (kind == "gpt2") return OfBytes();
    if (kind == "llama") return OfPieces();
    file_.Refuse(kKind, "expected gpt2 or llama");
  }

 private:
  void CheckTexts(const char* key, const GgufFile::Texts& texts) const {
    if (texts.empty()) file_.Refuse(key, "expected at least one");
    for (size_t i = 0; i < texts.size(); ++i) {
      if (texts[i].empty())
        throw ConfigError(fmt::format("{}: {}[{}]: expected a text, got ''", file_.origin(), key, i));
      CheckUtf8(texts[i], fmt::format("{}: {}[{}]: is not UTF-8", file_.origin(), key, i));
    }
  }

  [[nodiscard]] PieceKind KindOf(size_t id) const {
    if (!file_.Has(kTypes)) return PieceKind::kNormal;
    const double type = file_.NumberArray(kTypes)[id];
    if (!(type >= 1 && type <= 6 && type == std::floor(type))) {
      throw ConfigError(
          fmt::format("{}: {}[{}]: expected a type from 1 to 6, got {}", file_.origin(), kTypes, id, type));
    }
    return static_cast<PieceKind>(type);
  }

  std::shared_ptr<const TokenizerParts> OfBytes() const {
    const Words& words = WordsOf(file_);
    const GgufFile::Texts& merges = file_.TextArray(kMerges);
    if (!merges.empty()) CheckTexts(kMerges, merges);
    Json vocab = Json::object();
    Json added = Json::array();
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (!vocab.emplace(tokens_[id], id).second) {
        throw ConfigError(
            fmt::format("{}: {}[{}]: {} is there twice", file_.origin(), kGgufTokens, id, Shown(tokens_[id])));
      }
      const PieceKind kind = KindOf(id);
      if (kind != PieceKind::kControl && kind != PieceKind::kUserDefined) continue;
      added.push_back({{"id", id}, {"content", tokens_[id]}, {"special", kind == PieceKind::kControl}});
    }
    Json json = {
        {"model",
         {{"type", "BPE"}, {"ignore_merges", words.ignore_merges}, {"vocab", std::move(vocab)}, {"merges", merges}}},
        {"added_tokens", std::move(added)},
        {"pre_tokenizer", PreTokenizerOf(words)},
        {"decoder", {{"type", "ByteLevel"}}},
        {"post_processor", PostProcessor(words.adds_bos)}};
    if (words.normalized) json["normalizer"] = {{"type", "NFC"}};
    return MakeTokenizer(JsonObject(json, file_.origin()), Config());
  }

  std::shared_ptr<const TokenizerParts> OfPieces() const {
    const GgufFile::Numbers& scores = file_.NumberArray(kScores);
    if (scores.size() != tokens_.size()) {
      file_.Refuse(kScores, fmt::format("expected one for each of {} tokens", tokens_.size()));
    }
    SentencePieceFile pieces;
    pieces.model = PieceModel::kBpe;
    pieces.byte_fallback = true;
    pieces.add_dummy_prefix = file_.Bool("tokenizer.ggml.add_space_prefix", true);
    pieces.remove_extra_spaces = file_.Bool("tokenizer.ggml.remove_extra_whitespaces", false);
    size_t bytes = 0;
    for (size_t id = 0; id < tokens_.size(); ++id) {
      const auto score = static_cast<float>(scores[id]);
      if (!std::isfinite(score)) {
        throw ConfigError(
            fmt::format("{}: {}[{}]: expected a finite number, got {}", file_.origin(), kScores, id, score));
      }
      const PieceKind kind = KindOf(id);
      if (kind == PieceKind::kByte && ByteOfPiece(tokens_[id]) < 0) {
        throw ConfigError(fmt::format("{}: {}[{}]: expected a byte such as <0x0A>, got {}", file_.origin(),
                                      kGgufTokens, id, Shown(tokens_[id])));
      }
      bytes += kind == PieceKind::kByte ? 1 : 0;
      pieces.pieces.push_back({tokens_[id], score, kind});
    }
    if (bytes != 256) file_.Refuse(kGgufTokens, fmt::format("expected one for each of 256 bytes, found {}", bytes));
    return MakeTokenizer(pieces, Config(), file_.origin());
  }

  [[nodiscard]] TokenConfig Config() const { return {GgufTokenizerConfig(file_), file_.origin()}; }

  /// The tokens that a text gets around it.
  [[nodiscard]] Json PostProcessor(bool adds_bos) const {
    Json single = Json::array();
    Json special = Json::object();
    const auto add = [&](const char* name, bool otherwise) {
      const auto id = file_.TokenId(fmt::format("tokenizer.ggml.{}_token_id", name), std::ssize(tokens_));
      if (!id || !file_.Bool(fmt::format("tokenizer.ggml.add_{}_token", name), otherwise)) return;
      single.push_back({{"SpecialToken", {{"id", name}}}});
      special[name] = {{"ids", {*id}}};
    };
    add("bos", adds_bos);
    single.push_back({{"Sequence", {{"id", "A"}}}});
    add("eos", false);
    return {{"type", "TemplateProcessing"}, {"single", std::move(single)}, {"special_tokens", std::move(special)}};
  }

  const GgufFile& file_;
  const GgufFile::Texts& tokens_;
};

}  // namespace

std::shared_ptr<const TokenizerParts> LoadTokenizerGguf(const GgufFile& file) { return GgufLoader(file).Run(); }

}  // namespace runahead::tokenizer
