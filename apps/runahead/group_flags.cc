#include "group_flags.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <memory>

#include "base/descriptor.h"
#include "flags.h"
#include "runahead/error.h"
#include "runahead/group.h"
#include "runahead/model.h"
#include "signals.h"

namespace runahead::cli {

void AddGroupFlags(CLI::App& command, GroupFlags& flags) {
  command
      .add_option("--secret-file", flags.secret_file,
                  "Under a launcher: a file with the secret that all processes share, which only its owner may read "
                  "[$RUNAHEAD_SECRET_FILE; without one all must be on this host]")
      ->type_name("FILE");
  constexpr double kLongest = 1e6;
  AddNumber(command, "--meet-timeout", flags.meet_timeout_s, 1, kLongest,
            fmt::format("Under a launcher: seconds in which all processes must come [{}]", flags.meet_timeout_s))
      ->type_name("SECONDS");
  AddNumber(command, "--lost-after", flags.lost_after_s, 0.1, kLongest,
            fmt::format("Under a launcher: a process that gives no sign of life for so many seconds is lost [{}]",
                        flags.lost_after_s))
      ->type_name("SECONDS");
  command
      .add_option(
          "--on-failure", flags.on_failure,
          fmt::format("Under a launcher, when another process than the first is lost: 'replan' goes on with the "
                      "others until it is started again, 'fail' ends all [{}]",
                      flags.on_failure))
      ->type_name("DO")
      ->check(CLI::IsMember({"fail", "replan"}));
}

void UseOneRankEach(const CLI::App& command, EngineOptions& options) {
  if (command.count("--devices") == 0 && FindGroup()) options.devices = "cpu";
}

std::optional<int> ServeFirstProcess(const std::string& model, const GroupFlags& flags, EngineOptions& options) {
  std::optional<GroupOptions> group = FindGroup();
  if (!group) return std::nullopt;
  if (!flags.secret_file.empty()) group->secret = ReadGroupSecret(flags.secret_file);
  group->meet_timeout_s = flags.meet_timeout_s;
  group->lost_after_s = flags.lost_after_s;
  group->replan = flags.on_failure == "replan";
  group->on_change = [](const std::string& line) {
    (void)WriteAll(STDERR_FILENO, fmt::format("runahead: {}\n", line));
  };
  const bool first = group->process == 0;
  options.group = std::make_shared<const GroupOptions>(*std::move(group));
  if (first) return std::nullopt;
  // A terminal and a launcher tell all processes to end: the first one ends its work, and then this one has none.
  constexpr auto kPatience = std::chrono::seconds(60);
  if (!flags.interrupt_ends) (void)std::signal(SIGINT, SIG_IGN);
  const Interrupts interrupts = flags.interrupt_ends ? Interrupts({SIGINT, SIGTERM}, SecondSignal::kEndsTheProgram)
                                                     : Interrupts({SIGTERM}, SecondSignal::kEndsTheProgram);
  std::optional<std::chrono::steady_clock::time_point> until;
  ServeRanks(Model(model), options, [&] {
    if (!until && interrupts.Came()) until = std::chrono::steady_clock::now() + kPatience;
    return until && std::chrono::steady_clock::now() >= *until;
  });
  return 0;
}

void RefuseGroup() {
  if (const std::optional<GroupOptions> group = FindGroup()) {
    throw ConfigError(
        fmt::format("a launcher started {} processes, but this command works with the ranks of one: say --devices "
                    "cpu:{} instead, without a launcher",
                    group->processes, group->processes));
  }
}

}  // namespace runahead::cli
