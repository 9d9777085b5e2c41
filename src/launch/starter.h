// Starts the processes of a group, on this host or on several, and sees them to their end.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace runahead {

struct StartOptions {
  int ranks = 1;
  std::vector<std::string> command;  // program and arguments of every rank
  std::vector<std::string> hosts;    // [ranks], reached over ssh; empty: all on this host
  std::string ssh = "ssh";           // the program that reaches them
  std::chrono::milliseconds grace{
      3000};  // what the others have to end by themselves once one failed, and again to heed SIGTERM
  /// How often each rank but 0 is started again when it failed, while the others go on. None: when one failed all
  /// end.
  std::optional<int> restarts = std::nullopt;
};

/// Runs `command` once for each rank, with RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT and
/// RUNAHEAD_SECRET_FILE set, the last to a file that holds a fresh secret and that nobody else can read. Rank 0 has
/// this process's stdout, and on one host its stdin. `say` gets each line of a rank's stderr, behind "[rank] ", and
/// who failed. Signals that ask this process to end are passed on. When one rank fails that is not started again the
/// others get a grace, SIGTERM, a grace, SIGKILL; with `restarts`, when rank 0 ends. Returns 0, or the exit code of
/// the rank that failed first, with `restarts` of rank 0, 128 + signal where one killed it. Throws IoError where
/// processes cannot be made. Takes over SIGCHLD, SIGINT, SIGTERM and SIGHUP: no other thread may have them unblocked.
int StartRanks(const StartOptions& options, const std::function<void(std::string_view line)>& say);

/// Hosts of a file, one for each rank: lines "host" or "host slots=N", '#' comments. Throws ConfigError naming the
/// line.
std::vector<std::string> ParseHosts(std::string_view text, const std::string& origin);

}  // namespace runahead
