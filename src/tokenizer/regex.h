// Regular expressions of tokenizer.json, compiled by PCRE2 to machine code.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/ascii_words.h"

namespace runahead::tokenizer {

/// Bytes [begin, end) of some text.
struct Range {
  uint32_t begin;
  uint32_t end;
};

/// A compiled pattern. Immutable; FindAll may run on many threads.
class Regex {
 public:
  /// `pattern` is in Oniguruma's syntax. Throws ConfigError, opening with `origin`.
  Regex(std::string_view pattern, std::string origin);

  /// Appends the matches in `text` (which must be UTF-8, under 4 GiB), left to right. An empty match counts unless it
  /// touches the match before it. Throws ConfigError when the engine gives up on a text.
  void FindAll(std::string_view text, std::vector<Range>& matches) const;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
  std::string origin_;
  std::optional<AsciiWords> ascii_;  // fast way through ASCII; none: the pattern has no such way
};

}  // namespace runahead::tokenizer
