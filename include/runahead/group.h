// Several processes, on one host or on several, whose ranks work as one engine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "runahead/engine.h"
#include "runahead/export.h"

namespace runahead {

/// Where this process is in its group. Process 0 has the engine and what is asked of it; the others run their ranks
/// for it (ServeRanks). Ranks are numbered by their processes, in each by its EngineOptions::devices.
struct GroupOptions {
  int process = 0;
  int processes = 1;
  std::string host;   // host of process 0, where all meet
  uint16_t port = 0;  // the port at which it listens for them
  /// What all must know before anything else of theirs is read, 16 bytes or more. Empty: only processes of this host
  /// may meet.
  std::string secret;
  double meet_timeout_s = 300;  // longest wait for processes that are missing, s
  double lost_after_s = 2;      // a process that gives no sign of life for longer is lost, s
  /// When another process than 0 is lost, the others do its work, and it may come again. Otherwise the group ends.
  bool replan = false;
  /// Is told, in a line each, which ranks are lost and back while the group goes on. By any thread; may be empty.
  std::function<void(const std::string& line)> on_change;
};

/// What torchrun, mpirun (Open MPI), srun (Slurm), Kubernetes' LeaderWorkerSet, or RANK, WORLD_SIZE, MASTER_ADDR and
/// MASTER_PORT in the environment say; nothing where there is one process. The secret is that of ReadGroupSecret, for
/// the file that RUNAHEAD_SECRET_FILE names. Throws ConfigError naming the variable and the value, and what
/// ReadGroupSecret throws.
RUNAHEAD_API std::optional<GroupOptions> FindGroup();

/// The secret in a file, without the whitespace at its end. Throws IoError where it cannot be read; ConfigError where
/// others than its owner may read it, or it has fewer than 16 bytes.
RUNAHEAD_API std::string ReadGroupSecret(const std::filesystem::path& path);

/// Runs this process's ranks for the engine of process 0, until that goes. `options.group` says where this process
/// is, and is not process 0; versions, the model and what decides over bits are compared with process 0's. Throws as
/// Engine::Load does, and LinkError naming a rank of the group that is lost, and its host. `stop`, which may be
/// empty, is asked now and then.
RUNAHEAD_API void ServeRanks(const Model& model, const EngineOptions& options,
                             const std::function<bool()>& stop = {});

}  // namespace runahead
