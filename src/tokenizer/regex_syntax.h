// Oniguruma's regular expressions, which tokenizer.json is written in, in the words of PCRE2.
#pragma once

#include <string>
#include <string_view>

namespace runahead::tokenizer {

/// The PCRE2 pattern (options UTF, UCP, MULTILINE, newline LF) that matches what Oniguruma's default syntax matches
/// with `pattern`. Throws ConfigError, opening with `origin`, for a construct whose meanings differ or are unknown.
std::string TranslateRegex(std::string_view pattern, std::string_view origin);

}  // namespace runahead::tokenizer
