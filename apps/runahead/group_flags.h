// A command in several processes: the first has the engine, the others run their ranks for it.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "runahead/engine.h"

namespace runahead::cli {

struct GroupFlags {
  std::string secret_file;  // empty: what the environment says
  double meet_timeout_s = 300;
  double lost_after_s = 2;
  bool interrupt_ends = true;       // SIGINT asks the command to end, and not only for the end of an answer
  std::string on_failure = "fail";  // what is done when a process other than the first is lost
};

/// --secret-file, --meet-timeout, --lost-after and --on-failure, for commands that can run in several processes.
void AddGroupFlags(CLI::App& command, GroupFlags& flags);

/// Of commands that measure all processors of one process: in a group each process has one CPU rank, unless --devices
/// says otherwise.
void UseOneRankEach(const CLI::App& command, EngineOptions& options);

/// Looks where a launcher put this process. Nothing: the command goes on, with an engine of `options`, which may now
/// be that of a group. Otherwise the exit code: this process was not the first of its group, and its part is done.
/// Throws as ServeRanks does.
std::optional<int> ServeFirstProcess(const std::string& model, const GroupFlags& flags, EngineOptions& options);

/// Throws ConfigError where a launcher started several processes.
void RefuseGroup();

}  // namespace runahead::cli
