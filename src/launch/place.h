// Where a launcher put this process: its rank, how many there are, and where they meet.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace runahead {

struct Place {
  int rank = 0;
  int ranks = 1;
  int local_rank = 0;       // number among the processes of its host
  std::string master_host;  // host of rank 0, where all meet
  uint16_t master_port = 0;
  std::string launcher;  // name for messages: "torchrun", "mpirun", "srun", "LeaderWorkerSet", "RANK"

  /// Whether rank 0's host is a loopback address: all processes are on this host then.
  [[nodiscard]] bool on_one_host() const;
};

/// The value of an environment's variable, or null.
using Environment = std::function<const char*(const char* name)>;

/// What torchrun, mpirun (Open MPI), srun (Slurm), Kubernetes' LeaderWorkerSet or plain RANK, WORLD_SIZE,
/// MASTER_ADDR, MASTER_PORT and LOCAL_RANK say; MASTER_ADDR and MASTER_PORT go before what a launcher says of rank
/// 0's host. Nothing: nobody put it anywhere. Throws ConfigError naming the variable and its value where they make no
/// sense.
std::optional<Place> FindPlace(const Environment& environment);

}  // namespace runahead
