// `runahead launch`: the same command once per rank, on this host or on several.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/descriptor.h"
#include "base/file.h"
#include "command.h"
#include "launch/starter.h"
#include "runahead/error.h"

namespace runahead::cli {
namespace {

constexpr int kRestartsOfServe = 3;

struct LaunchFlags {
  int ranks = 0;
  std::string hosts;
  double grace = 3;
  std::optional<int> restarts;
  std::vector<std::string> command;
};

/// The command with this program in front where it begins with one of its subcommands.
std::vector<std::string> WholeCommand(const CLI::App& launch, const std::vector<std::string>& words) {
  std::vector<std::string> command = words;
  const auto known =
      launch.get_parent()->get_subcommands([&](const CLI::App* one) { return one->get_name() == words.front(); });
  if (!known.empty()) command.insert(command.begin(), std::filesystem::read_symlink("/proc/self/exe").string());
  return command;
}

int RunLaunch(const CLI::App& launch, const LaunchFlags& flags) {
  StartOptions options;
  if (!flags.hosts.empty()) {
    options.hosts = ParseHosts(ReadFile(flags.hosts), flags.hosts);
    options.ranks = static_cast<int>(options.hosts.size());
    if (flags.ranks > options.ranks) {
      throw ConfigError(fmt::format("--ranks {}: {} has room for {}", flags.ranks, flags.hosts, options.ranks));
    }
    if (flags.ranks > 0) options.hosts.resize(static_cast<size_t>(flags.ranks));
  }
  if (flags.ranks > 0) options.ranks = flags.ranks;
  if (flags.ranks == 0 && flags.hosts.empty()) throw ConfigError("launch: --ranks or --hosts is wanted");
  options.command = WholeCommand(launch, flags.command);
  options.grace = std::chrono::milliseconds(static_cast<int64_t>(flags.grace * 1000));
  options.restarts = flags.restarts;
  // It goes on without ranks that are lost, unless it is told otherwise, and then rank 0 ends all.
  if (!options.restarts && flags.command.front() == "serve") options.restarts = kRestartsOfServe;
  return StartRanks(options,
                    [](std::string_view line) { (void)WriteAll(STDERR_FILENO, std::string(line).append("\n")); });
}

}  // namespace

Action AddLaunch(CLI::App& command) {
  auto flags = std::make_shared<LaunchFlags>();
  command.add_option("--ranks", flags->ranks, "How many times the command runs [all that --hosts has room for]")
      ->type_name("N")
      ->check(CLI::Range(1, 4096));
  command
      .add_option("--hosts", flags->hosts,
                  "A file of hosts, reached over ssh without a password: a line 'HOST' or 'HOST slots=N' each")
      ->type_name("FILE");
  command
      .add_option(
          "--grace", flags->grace,
          "Seconds that the others have to end by themselves once a rank failed, and again to heed SIGTERM [3]")
      ->type_name("S")
      ->check(CLI::Range(0.0, 3600.0));
  command
      .add_option("--restarts", flags->restarts,
                  fmt::format("How often each rank but 0 is started again when it failed, while the others go on "
                              "(--on-failure replan) [serve: {}, else all end]",
                              kRestartsOfServe))
      ->type_name("N")
      ->check(CLI::Range(0, 1'000'000));
  command
      .add_option("command", flags->command,
                  "What each rank runs, behind '--': one of this program's commands, or any other program")
      ->type_name("COMMAND")
      ->required();
  return [flags, &command] { return RunLaunch(command, *flags); };
}

}  // namespace runahead::cli
