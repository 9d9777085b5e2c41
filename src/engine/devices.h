// The devices of an engine, as a user names them.
#pragma once

#include <string_view>

namespace runahead {

/// Ranks asked for by "cpu" (one) or "cpu:N". Throws ConfigError naming `text` for anything else, and for N outside 1
/// to 256.
int ParseCpuRanks(std::string_view text);

}  // namespace runahead
