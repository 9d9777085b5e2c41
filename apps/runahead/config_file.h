// Flags from a TOML file.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace runahead::cli {

/// Gives `command`, which was parsed, the flags of a file that the command line did not give: `port = 8080`,
/// `quiet = true`, `cors-origin = ["a", "b"]`. Throws ConfigError naming the file and the key for one that is no
/// flag, and for a value that the flag does not take.
void ReadConfigFile(CLI::App& command, const std::string& path);

}  // namespace runahead::cli
