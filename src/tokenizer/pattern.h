// What Split and Replace look for: a plain string or a regular expression.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "tokenizer/regex.h"

namespace runahead::tokenizer {

/// Immutable; FindAll may run on many threads.
class Pattern {
 public:
  /// Reads the field `key`: {"String": ...} or {"Regex": ...}. Throws ConfigError.
  Pattern(const JsonObject& component, const char* key);

  /// Appends the matches in `text`, left to right, not overlapping.
  void FindAll(std::string_view text, std::vector<Range>& matches) const;

  /// `text` with every match replaced.
  [[nodiscard]] std::string ReplaceAll(std::string_view text, std::string_view content) const;

  /// How many times longer a text may become by ReplaceAll, at most.
  [[nodiscard]] double Growth(std::string_view content) const;

 private:
  std::variant<std::string, Regex> pattern_;
};

}  // namespace runahead::tokenizer
