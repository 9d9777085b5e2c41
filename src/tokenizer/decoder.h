// Decoders: how tokenizer.json turns tokens into text, one token after the other.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/json.h"

namespace runahead::tokenizer {

/// A stretch of some token's text: `first` opens the token, `last` ends it. Stretches end between characters.
struct Fragment {
  std::string_view text;
  bool first;
  bool last;
};

/// One step of decoding, with the state of one stream: fragments go in, and come out at the next step as early as no
/// later fragment can change them. One thread.
class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  virtual void Feed(const Fragment& fragment) = 0;
  virtual void Finish() = 0;  // no more fragments: hands on what was held back and starts anew
};

/// The whole way from tokens to text for one stream. One thread.
class DecodeStream {
 public:
  explicit DecodeStream(std::unique_ptr<DecodeStage> stages, std::unique_ptr<std::string> text)
      : text_(std::move(text)), stages_(std::move(stages)) {}

  void Feed(std::string_view token) { stages_->Feed({token, true, true}); }
  void Finish() { stages_->Finish(); }

  /// The text that has become final since the last call.
  std::string Take() { return std::exchange(*text_, {}); }

 private:
  std::unique_ptr<std::string> text_;  // written by the last stage
  std::unique_ptr<DecodeStage> stages_;
};

/// A decoder as the file describes it: makes streams. Immutable; Start may be called on many threads.
class Decoder {
 public:
  virtual ~Decoder() = default;

  /// How many times longer a text may become, at most.
  [[nodiscard]] virtual double Growth() const { return 1; }

  /// A stage that feeds `next`.
  [[nodiscard]] virtual std::unique_ptr<DecodeStage> Start(std::unique_ptr<DecodeStage> next) const = 0;
};

/// When the field `key` is absent or null, tokens are joined by spaces. Throws ConfigError.
std::unique_ptr<const Decoder> LoadDecoder(const JsonObject& file, const char* key);

struct PieceSettings;
std::unique_ptr<const Decoder> MakePieceDecoder(const PieceSettings& settings);

std::unique_ptr<DecodeStream> StartDecoding(const Decoder& decoder);

}  // namespace runahead::tokenizer
