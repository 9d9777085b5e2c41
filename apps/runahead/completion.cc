// What shells offer behind `runahead`: commands, their flags, names where a flag takes one of a few, paths elsewhere.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "flag_facts.h"
#include "pages.h"
#include "runahead/error.h"

namespace runahead::cli {
namespace {

/// The lines "generate.--strategy) ...;;" of every flag that takes one of a few names; an argument without a flag
/// follows the command.
std::string ValueCases(const std::vector<const CLI::App*>& commands) {
  std::string cases;
  for (const CLI::App* command : commands) {
    for (const FlagFacts& flag : FlagsOf(*command)) {
      if (flag.values.empty()) continue;
      const std::string& before = flag.names.empty() ? command->get_name() : flag.names.back();
      cases += fmt::format("    {}.{}) words=\"{}\" ;;\n", command->get_name(), before, fmt::join(flag.values, " "));
    }
  }
  return cases;
}

/// The lines "generate) flags=... ;;" with all flags, and with those that are followed by no path and no known name.
std::string FlagCases(const std::vector<const CLI::App*>& commands) {
  std::string cases;
  for (const CLI::App* command : commands) {
    std::vector<std::string> all;
    std::vector<std::string> free;
    for (const FlagFacts& flag : FlagsOf(*command)) {
      all.insert(all.end(), flag.names.begin(), flag.names.end());
      if (!flag.value.empty() && flag.values.empty() && !flag.TakesPath()) {
        free.insert(free.end(), flag.names.begin(), flag.names.end());
      }
    }
    cases += fmt::format("    {}) flags=\"{}\" free=\"{}\" ;;\n", command->get_name(), fmt::join(all, " "),
                         fmt::join(free, " "));
  }
  return cases;
}

/// The function that both shells call. COMPREPLY left empty: paths.
std::string Function(const CLI::App& app) {
  const std::vector<const CLI::App*> commands = CommandsOf(app);
  std::vector<std::string> first;
  for (const CLI::App* command : commands) first.push_back(command->get_name());
  for (const FlagFacts& flag : FlagsOf(app)) first.push_back(flag.names.back());
  return fmt::format(R"(_runahead() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" command="${{COMP_WORDS[1]}}"
  local flags="" free="" words=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{}" -- "$current"))
    return
  fi
  case "$command" in
{}  esac
  case "$command.$previous" in
{}  esac
  if [ -n "$words" ]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  elif [[ "$previous" == -* && " $free " == *" $previous "* ]]; then
    compopt +o default 2>/dev/null
  elif [[ "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$current"))
  fi
}}
)",
                     fmt::join(first, " "), FlagCases(commands), ValueCases(commands));
}

}  // namespace

std::string Completion(const CLI::App& app, const std::string& shell) {
  std::string head;
  if (shell == "bash") {
    head = "# Completion of runahead for bash: source this, or put it where bash-completion looks.\n";
  } else if (shell == "zsh") {
    head = "#compdef runahead\n# Completion of runahead for zsh.\nautoload -U +X bashcompinit && bashcompinit\n";
  } else {
    throw ConfigError(fmt::format("--completion: expected bash or zsh, got '{}'", shell));
  }
  return head + Function(app) + "complete -o default -F _runahead runahead\n";
}

void AddPageFlags(CLI::App& app) {
  // CLI11 prints what such an exception holds and a line's end.
  const auto print = [](std::string text) {
    text.pop_back();
    throw CLI::CallForVersion(text, 0);
  };
  app.add_flag_callback(
      "--man", [&app, print] { print(ManPage(app)); }, "Print the page for man, in roff");
  app.add_option_function<std::string>(
         "--completion", [&app, print](const std::string& shell) { print(Completion(app, shell)); },
         "Print completion for bash or zsh: source <(runahead --completion bash)")
      ->type_name("SHELL");
}

}  // namespace runahead::cli
