// The parts of a loaded tokenizer, shared by its copies and streams.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/gguf_file.h"
#include "base/json.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/decoder.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/post_processor.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/sentencepiece_file.h"
#include "tokenizer/token_config.h"

namespace runahead::tokenizer {

/// Turns one piece of a text into ids: what differs between kinds of vocabularies. Immutable, for many threads.
class Model {
 public:
  /// The scratch memory of one call.
  class Run {
   public:
    virtual ~Run() = default;
    /// Appends the ids of a piece of UTF-8 text.
    virtual void Encode(std::string_view piece, std::vector<int32_t>& out) = 0;
  };

  virtual ~Model() = default;
  [[nodiscard]] virtual std::unique_ptr<Run> Start() const = 0;
  [[nodiscard]] virtual const Vocab& vocab() const = 0;
};

/// A model around an encoder such as Bpe.
template <typename Encoder>
class ModelOf final : public Model {
 public:
  template <typename... Arguments>
  explicit ModelOf(const Arguments&... arguments) : encoder_(arguments...) {}

  [[nodiscard]] std::unique_ptr<Run> Start() const override { return std::make_unique<EncoderRun>(encoder_); }
  [[nodiscard]] const Vocab& vocab() const override { return encoder_.vocab(); }

 private:
  class EncoderRun final : public Run {
   public:
    explicit EncoderRun(const Encoder& encoder) : encoder_(encoder) {}
    void Encode(std::string_view piece, std::vector<int32_t>& out) override { encoder_.Encode(piece, scratch_, out); }

   private:
    const Encoder& encoder_;
    typename Encoder::Scratch scratch_;
  };

  Encoder encoder_;
};

/// Immutable once loaded. Text goes through added_tokens, normalizer, added_tokens, pre_tokenizer, model, special.
struct TokenizerParts {
  std::string origin;                                 // the file, for errors
  std::unique_ptr<const Normalizer> normalizer;       // may be null
  std::unique_ptr<const PreTokenizer> pre_tokenizer;  // may be null
  std::unique_ptr<const Model> model;
  std::unique_ptr<const Decoder> decoder;
  AddedTokens added_tokens;
  Template special;  // tokens that add_special puts around a text
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
  bool skipped_tokens_divide = false;  // true: special tokens that decoding leaves out still end a run of bytes
  std::string unknown_surface;         // text of a SentencePiece model's unknown token

  struct Token {
    std::string_view text;  // text of the token; null data: no token has this id
    bool special = false;
  };
  std::vector<Token> tokens;  // [id]; a view of the model's and the added tokens, made by IndexTokens

  void IndexTokens();

  /// Throws ConfigError when `special` has an id that no token has.
  void CheckSpecial() const;

  /// Throws ConfigError naming an id that no token has.
  [[nodiscard]] const Token& TokenOf(int32_t id) const;
};

/// Reads `tokenizer.model` (SentencePiece) and the files beside it. Throws IoError and ConfigError.
std::shared_ptr<const TokenizerParts> LoadTokenizerModel(const std::filesystem::path& model_dir);
/// The same of a file that is parsed; `origin` opens errors.
std::shared_ptr<const TokenizerParts> MakeTokenizer(const SentencePieceFile& file, const TokenConfig& config,
                                                    const std::string& origin);

/// Reads `tokenizer.json` and the files beside it. Throws IoError and ConfigError.
std::shared_ptr<const TokenizerParts> LoadTokenizerJson(const Json& json, const std::filesystem::path& model_dir);
/// The same of a file that is parsed.
std::shared_ptr<const TokenizerParts> MakeTokenizer(const JsonObject& file, const TokenConfig& config);

/// The tokenizer of a GGUF file, of the kinds "gpt2" and "llama". Throws ConfigError naming file, key and value.
std::shared_ptr<const TokenizerParts> LoadTokenizerGguf(const GgufFile& file);

}  // namespace runahead::tokenizer
