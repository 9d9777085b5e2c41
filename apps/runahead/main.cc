// The command line of Runahead: picks the subcommand and turns errors into one line and an exit code.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <exception>
#include <new>
#include <sstream>
#include <string>
#include <string_view>

#include "base/descriptor.h"
#include "command.h"
#include "flag_facts.h"
#include "output.h"
#include "pages.h"
#include "runahead/error.h"
#include "runahead/version.h"
#include "signals.h"

namespace runahead::cli {
namespace {

struct Command {
  const char* name;
  const char* help;
  Action (*add)(CLI::App& command);
};

constexpr std::array kCommands = {
    Command{"generate", "Answer a prompt", AddGenerate},
    Command{"batch", "Answer a file of requests, many at a time", AddBatch},
    Command{"chat", "Talk with a model in the terminal", AddChat},
    Command{"serve", "Answer requests of OpenAI's API over HTTP", AddServe},
    Command{"bench", "Time strategies, partitions, ranks and contexts against the matmul ceiling", AddBench},
    Command{"tune", "Measure this machine's costs, search for the best partitions, check predictions", AddTune},
    Command{"plan", "Predict the time to the first token on a described cluster", AddPlan},
    Command{"cache", "List, check or remove the rows that --cache-dir kept", AddCache},
    Command{"demo", "Answer a question about a long log book on one rank and on several", AddDemo},
    Command{"launch", "Run a command once per rank, here or on several hosts", AddLaunch},
    Command{"tokenize", "Turn text into token ids, or ids into text", AddTokenize},
    Command{"inspect", "Show what a model folder holds and what it needs", AddInspect},
    Command{"make-model", "Write a model of a known size with random weights", AddMakeModel},
};

/// Says `message` as one line on stderr.
int Fail(const std::string& message, int exit_code) {
  WriteError(message);
  return exit_code;
}

/// Says so without asking for more.
int FailForMemory() {
  (void)WriteAll(STDERR_FILENO, "runahead: out of memory\n");
  return kFailed;
}

/// Memory may end where no exception can pass: JSON documents need some to be freed.
[[noreturn]] void EndWithoutException() noexcept {
  try {
    if (const std::exception_ptr error = std::current_exception()) std::rethrow_exception(error);
  } catch (const std::bad_alloc&) {
    ::_exit(FailForMemory());
  } catch (...) {  // a mistake of ours
  }
  std::abort();
}

/// Version and commit, what was built, and what of it this machine can use.
std::string VersionText() {
  const BuildInfo info = DescribeBuild();
  return fmt::format(
      "runahead {}{}\nbuilt for {}\nprocessor {}, bf16 {}", info.version,
      info.commit.empty() ? "" : fmt::format(" ({})", info.commit), fmt::join(info.parts, ", "),
      info.cpu_features.empty() ? "of unknown features" : fmt::format("{}", fmt::join(info.cpu_features, " ")),
      info.native_bf16 ? "multiplied natively" : "computed in f32");
}

/// Throws ConfigError when the first argument is neither a command nor a flag of the program, or is missing.
void CheckCommand(int argc, const char* const* argv) {
  constexpr std::array<std::string_view, 6> kFlags = {"-h",        "--help", "--help-all",
                                                      "--version", "--man",  "--completion"};
  std::string names;
  for (const Command& command : kCommands) {
    if (argc > 1 && argv[1] == std::string_view(command.name)) return;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", command.name);
  }
  if (argc < 2) throw ConfigError(fmt::format("a command is needed: {}; --help tells more", names));
  if (std::find(kFlags.begin(), kFlags.end(), argv[1]) == kFlags.end()) {
    throw ConfigError(fmt::format("unknown command '{}' (known: {})", argv[1], names));
  }
}

int RunProgram(int argc, const char* const* argv) {
  CLI::App app("Runahead: the first token of a long prompt, sooner, from several ranks", "runahead");
  app.set_version_flag("--version", VersionText);
  app.set_help_all_flag("--help-all", "Print the help of all commands");
  AddPageFlags(app);
  std::array<Action, kCommands.size()> actions;
  std::array<CLI::App*, kCommands.size()> subcommands{};
  for (size_t i = 0; i < kCommands.size(); ++i) {
    subcommands[i] = app.add_subcommand(kCommands[i].name, kCommands[i].help);
    actions[i] = kCommands[i].add(*subcommands[i]);
  }
  app.require_subcommand(1);
  try {
    CheckCommand(argc, argv);
    app.parse(argc, argv);
  } catch (const CLI::Success& request) {
    std::ostringstream help;
    app.exit(request, help, help);
    WriteOut(help.str());
    return 0;
  } catch (const CLI::ExtrasError&) {
    throw ConfigError(fmt::format("not expected: {}; --help tells what is", fmt::join(app.remaining(true), " ")));
  }
  for (size_t i = 0; i < kCommands.size(); ++i) {
    if (!subcommands[i]->parsed()) continue;
    RefuseEmptyPaths(*subcommands[i]);
    return actions[i]();
  }
  return kBadInput;  // not reached: parse requires a subcommand
}

int RunSafely(int argc, const char* const* argv) {
  try {
    return RunProgram(argc, argv);
  } catch (const OutputClosed&) {
    return 0;
  } catch (const CLI::ParseError& error) {
    return Fail(error.what(), kBadInput);
  } catch (const ConfigError& error) {
    return Fail(error.what(), kBadInput);
  } catch (const IoError& error) {
    return Fail(error.what(), kBadInput);
  } catch (const std::bad_alloc&) {
    return FailForMemory();
  } catch (const std::exception& error) {
    return Fail(error.what(), kFailed);
  }
}

}  // namespace
}  // namespace runahead::cli

int main(int argc, char** argv) {
  std::set_terminate(runahead::cli::EndWithoutException);
  runahead::cli::TurnSignalsIntoErrors();
  return runahead::cli::RunSafely(argc, argv);
}
