// Normalizers: what tokenizer.json does to a text before it is cut.
#pragma once

#include <memory>
#include <string>

#include "base/json.h"

namespace runahead::tokenizer {

/// Rewrites a text. Immutable; Apply may run on many threads.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  [[nodiscard]] virtual std::string Apply(std::string text) const = 0;
};

/// Null when the field `key` is absent or null: the text stays as it is. Throws ConfigError.
std::unique_ptr<const Normalizer> LoadNormalizer(const JsonObject& file, const char* key);

}  // namespace runahead::tokenizer
