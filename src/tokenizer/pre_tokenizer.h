// Pre-tokenizers: how tokenizer.json cuts a normalized text into the pieces that are encoded one by one.
#pragma once

#include <memory>

#include "base/json.h"
#include "tokenizer/pieces.h"

namespace runahead::tokenizer {

/// Cuts pieces further, and may rewrite their text. Immutable; Apply may run on many threads.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void Apply(Pieces& pieces) const = 0;

  /// How many times longer the text may become, at most.
  [[nodiscard]] virtual double Growth() const { return 1; }
};

/// Null when the field `key` is absent or null: the text stays one piece. Throws ConfigError.
std::unique_ptr<const PreTokenizer> LoadPreTokenizer(const JsonObject& file, const char* key);

}  // namespace runahead::tokenizer
