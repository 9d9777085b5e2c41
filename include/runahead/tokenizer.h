// Text to token ids and back, exactly as the model's own tokenizer files say.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runahead/export.h"

namespace runahead {

namespace tokenizer {
class DecodeStream;
struct TokenizerParts;
}  // namespace tokenizer

/// The tokenizer of one model folder. Immutable after Load and cheap to copy (copies share the tables); every method
/// may be called from many threads at once. All methods of a tokenizer that was moved from throw ConfigError.
class RUNAHEAD_API Tokenizer {
 public:
  /// Reads the tokenizer of a GGUF file, or of a folder `tokenizer.json`, or `tokenizer.model` (SentencePiece) where
  /// there is none or this class does not implement what it says, and the files beside it that name special tokens:
  /// `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`. Throws IoError for a file that cannot
  /// be read and ConfigError, naming file, field and value, for content that is broken or that this class does not
  /// implement: nothing is approximated.
  static Tokenizer Load(const std::filesystem::path& model_dir);

  /// The ids of `utf8_text`. With `add_special`, the beginning- and end-of-sequence ids are added that the model's
  /// files ask for. Special tokens written out in the text become their ids. Throws ConfigError naming the offset and
  /// the value of the first byte that is not UTF-8.
  [[nodiscard]] std::vector<int32_t> Encode(std::string_view utf8_text, bool add_special = true) const;

  /// The text of `ids`, always valid UTF-8: bytes that form no character become U+FFFD. Spaces before punctuation are
  /// kept (no "clean-up"). Throws ConfigError naming an id that no token has.
  [[nodiscard]] std::string Decode(std::span<const int32_t> ids, bool skip_special = true) const;

  /// The id of a token, spelt as in the vocabulary.
  [[nodiscard]] std::optional<int32_t> TokenId(std::string_view token) const;

  /// How the special token `id` is spelt, which Decode leaves out; empty for any other id. Valid as long as this.
  [[nodiscard]] std::string_view SpecialToken(int32_t id) const;

  /// One more than the largest id. Ids without a token may lie below it.
  [[nodiscard]] int32_t vocab_size() const;

  // Ids that the tokenizer's files name; config.json and generation_config.json may name more.
  [[nodiscard]] std::optional<int32_t> bos_id() const;
  [[nodiscard]] std::optional<int32_t> eos_id() const;

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::shared_ptr<const tokenizer::TokenizerParts> parts);
  [[nodiscard]] const tokenizer::TokenizerParts& Parts() const;

  std::shared_ptr<const tokenizer::TokenizerParts> parts_;
};

/// Decodes ids one at a time: what Feed and Flush return, joined, is Tokenizer::Decode of all the ids. Text is
/// returned as soon as no later id can change it, so a character is never cut. Keeps the tokenizer's tables alive;
/// one thread. Both methods of a stream that was moved from throw ConfigError.
class RUNAHEAD_API StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  /// The text that has become final. Throws ConfigError as Tokenizer::Decode does; the stream stays usable.
  std::string Feed(int32_t id);

  /// The text that was held back. The stream then starts anew.
  std::string Flush();

 private:
  [[nodiscard]] tokenizer::DecodeStream& Stream() const;

  std::shared_ptr<const tokenizer::TokenizerParts> parts_;
  bool skip_special_;
  std::unique_ptr<tokenizer::DecodeStream> stream_;
};

}  // namespace runahead
