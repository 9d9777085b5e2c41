// The program described for other programs: a page for man, and completion for shells. Both are made of the flags as
// the subcommands declare them, so they say what this program takes.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace runahead::cli {

/// runahead.1 in roff.
std::string ManPage(const CLI::App& app);

/// A script that bash sources, or a file for zsh's fpath, named _runahead there. Throws ConfigError for another
/// shell.
std::string Completion(const CLI::App& app, const std::string& shell);

/// Adds --man and --completion, which print them.
void AddPageFlags(CLI::App& app);

}  // namespace runahead::cli
