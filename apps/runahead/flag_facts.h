// The flags of a subcommand as plain values.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace runahead::cli {

/// One flag or one positional argument.
struct FlagFacts {
  std::vector<std::string> names;   // "-n", "--max-new-tokens"; empty: positional
  std::string value;                // "FILE"; empty: takes none
  std::string help;                 // a sentence without its period
  std::vector<std::string> values;  // all values it takes, where they are few; empty: not listed

  [[nodiscard]] bool TakesPath() const;
};

/// Those of `command` and of its groups, in the order of its help.
std::vector<FlagFacts> FlagsOf(const CLI::App& command);

/// Throws ConfigError naming a flag of `command` that was given an empty text for a path, as an unset variable of a
/// shell does: an output would be lost without a word.
void RefuseEmptyPaths(const CLI::App& command);

/// The subcommands of `app`, without groups of flags.
std::vector<const CLI::App*> CommandsOf(const CLI::App& app);

}  // namespace runahead::cli
