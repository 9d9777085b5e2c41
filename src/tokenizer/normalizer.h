// Normalizers: what tokenizer.json does to a text before it is cut.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "base/json.h"

namespace runahead::tokenizer {

/// Rewrites a text. Immutable; Apply may run on many threads.
class Normalizer {
 public:
  virtual ~Normalizer() = default;

  /// `at_start`: the text begins where the whole input begins.
  [[nodiscard]] std::string Apply(std::string text, bool at_start = true) const {
    return Rewrite(std::move(text), at_start);
  }

  /// How many times longer a text may become, at most; a few bytes more do not count.
  [[nodiscard]] virtual double Growth() const { return 1; }

 private:
  [[nodiscard]] virtual std::string Rewrite(std::string text, bool at_start) const = 0;
};

/// No real tokenizer comes near: a file whose texts may grow more than this is refused, before they do.
inline constexpr double kMaxGrowth = 256;

/// Null when the field `key` is absent or null: the text stays as it is. Throws ConfigError.
std::unique_ptr<const Normalizer> LoadNormalizer(const JsonObject& file, const char* key);

}  // namespace runahead::tokenizer
