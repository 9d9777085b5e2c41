// What a suite's JSON must hold for its table and its plots.
#pragma once

#include <string>

#include "base/json.h"

namespace runahead::cli {

/// Throws ConfigError naming `origin`, the field and the value where `suite` is not what a suite of `runahead bench`
/// writes.
void CheckSuiteJson(const Json& suite, const std::string& origin);

}  // namespace runahead::cli
