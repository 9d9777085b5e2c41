#include "launch/place.h"

#include <fmt/format.h>

#include <charconv>
#include <string_view>

#include "runahead/error.h"

namespace runahead {
namespace {

/// The names by which a launcher says the same things.
struct Names {
  const char* launcher;
  const char* rank;
  const char* ranks;
  const char* local_rank;
  const char* mark;  // variable that tells this launcher from others
};

// TORCHELASTIC_RUN_ID is torchrun's; srun sets SLURM_STEP_ID, which a batch script by itself does not see.
constexpr Names kNames[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"},
    {"RANK", "RANK", "WORLD_SIZE", "LOCAL_RANK", "WORLD_SIZE"},
    {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_RANK"},
    {"LeaderWorkerSet", "LWS_WORKER_INDEX", "LWS_GROUP_SIZE", nullptr, "LWS_WORKER_INDEX"},
    {"srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_ID"},
};

constexpr uint16_t kPort = 29400;  // where nothing tells jobs apart

int NumberOf(const Environment& environment, const char* name, int lowest, int highest) {
  const char* const value = environment(name);
  if (value == nullptr)
    throw ConfigError(fmt::format("{} is not set, though other variables of its launcher are", name));
  const std::string_view text = value;
  int number = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (wrong != std::errc() || end != text.data() + text.size() || number < lowest || number > highest) {
    throw ConfigError(fmt::format("{}={}: a number from {} to {} is wanted", name, text, lowest, highest));
  }
  return number;
}

/// A port that jobs of different names rarely share, below those that the kernel gives out by itself.
uint16_t PortOf(std::string_view job) {
  uint32_t sum = 2166136261U;
  for (const char byte : job) sum = (sum ^ static_cast<unsigned char>(byte)) * 16777619U;
  return static_cast<uint16_t>(20'000 + sum % 12'000);
}

/// The first host of Slurm's "node[07-12,15],other": node07.
std::string FirstHost(std::string_view list) {
  const size_t bracket = list.find_first_of("[,");
  std::string host(list.substr(0, bracket));
  if (bracket == std::string_view::npos || list[bracket] == ',') return host;
  const std::string_view numbers = list.substr(bracket + 1);
  host.append(numbers.substr(0, numbers.find_first_of("-,]")));
  const size_t close = numbers.find(']');
  if (close == std::string_view::npos) return host;
  const std::string_view suffix = numbers.substr(close + 1);  // "rack[1-2]-ib"
  return host.append(suffix.substr(0, suffix.find_first_of(",[")));
}

/// What the launcher says of rank 0's host; empty: nothing.
std::string HostOf(const Environment& environment, const std::string& launcher, int ranks) {
  const auto value = [&](const char* name) {
    return std::string(environment(name) == nullptr ? "" : environment(name));
  };
  if (launcher == "LeaderWorkerSet") return value("LWS_LEADER_ADDRESS");
  if (launcher == "srun") {
    const std::string step = value("SLURM_STEP_NODELIST");
    return FirstHost(step.empty() ? value("SLURM_JOB_NODELIST") : step);
  }
  if (launcher == "mpirun" && value("OMPI_COMM_WORLD_LOCAL_SIZE") == std::to_string(ranks)) return "127.0.0.1";
  return ranks == 1 ? "127.0.0.1" : "";
}

uint16_t MasterPort(const Environment& environment, const std::string& launcher) {
  const char* const told = environment("MASTER_PORT");
  if (told != nullptr) {
    const auto port = static_cast<uint16_t>(NumberOf(environment, "MASTER_PORT", 1, 65'535));
    return launcher == "torchrun" ? PortOf(told) : port;  // torchrun itself listens there
  }
  const char* job = nullptr;
  if (launcher == "srun") job = environment("SLURM_JOB_ID");
  if (launcher == "mpirun") job = environment("PMIX_NAMESPACE");
  return job == nullptr ? kPort : PortOf(job);
}

}  // namespace

bool Place::on_one_host() const {
  return master_host == "localhost" || master_host == "::1" || master_host.starts_with("127.");
}

std::optional<Place> FindPlace(const Environment& environment) {
  for (const Names& names : kNames) {
    if (environment(names.mark) == nullptr || environment(names.rank) == nullptr) continue;
    constexpr int kMostRanks = 4096;
    Place place;
    place.launcher = names.launcher;
    place.ranks = NumberOf(environment, names.ranks, 1, kMostRanks);
    place.rank = NumberOf(environment, names.rank, 0, place.ranks - 1);
    const bool local = names.local_rank != nullptr && environment(names.local_rank) != nullptr;
    if (local) place.local_rank = NumberOf(environment, names.local_rank, 0, place.ranks - 1);
    const char* const host = environment("MASTER_ADDR");
    place.master_host = host != nullptr ? host : HostOf(environment, place.launcher, place.ranks);
    if (place.master_host.empty()) {
      throw ConfigError(fmt::format("MASTER_ADDR is not set: {} ranks of {} must know the host of rank 0",
                                    place.ranks, place.launcher));
    }
    place.master_port = MasterPort(environment, place.launcher);
    return place;
  }
  return std::nullopt;
}

}  // namespace runahead
