// Reading TOML with the same checks and errors as JSON.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace runahead {

/// The tables, lists, strings, numbers and booleans of a TOML document. Throws ConfigError that names `origin` and
/// the line for what is not TOML, for nesting deeper than 64 levels, and for dates and times, which nothing here has
/// a use for.
Json ParseToml(std::string_view text, const std::string& origin);

}  // namespace runahead
