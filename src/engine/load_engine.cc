// From a model's folder and options to an engine's ranks.
#include <fmt/format.h>

#include <algorithm>
#include <future>

#include "base/thread_room.h"
#include "engine/assumed_costs.h"
#include "engine/engine_group.h"
#include "engine/tuned_files.h"
#include "launch/fingerprint.h"
#include "model/model_loader.h"
#include "ops/devices.h"
#include "prefill/work_shape_of.h"
#include "runahead/group.h"
#include "runahead/version.h"
#include "tensor/cpu_device.h"

namespace runahead {
namespace {

constexpr int kMaxThreadsPerRank = 1024;
constexpr double kMaxTimeoutSeconds = 1e9;
constexpr double kMaxSlowdown = 1000;

DType ComputeDType(const std::string& asked, DType weights, const RankDevice& device) {
  if (!asked.empty()) {
    const std::optional<DType> dtype = ParseDType(asked);
    if (!dtype) throw ConfigError(fmt::format("dtype: unknown '{}' (known: f32, bf16, f16)", asked));
    return *dtype;
  }
  return PreferredDType(weights, device);
}

WeightFormat WeightFormatOf(const std::string& asked, bool on_gpu) {
  if (asked.empty()) return WeightFormat::kStored;
  const std::optional<WeightFormat> format = ParseWeightFormat(asked);
  if (!format) throw ConfigError(fmt::format("weights: unknown '{}' (known: {})", asked, kWeightFormatNames));
  const bool of_gpus = *format == WeightFormat::kFp8;
  if (*format != WeightFormat::kStored && of_gpus != on_gpu) {
    throw ConfigError(fmt::format("--weights {}: {}", asked,
                                  on_gpu ? "CPU ranks have it; expected stored or fp8 on GPUs"
                                         : "GPUs have it; expected stored, int8 or int4 on CPU ranks"));
  }
  return *format;
}

/// The threads and the slowdown of each rank, where so many processes of this host have as many ranks. Throws
/// ConfigError for what is out of range or not as many as ranks.
std::vector<CpuRankShare> SharesOf(const EngineOptions& options, int ranks, int processes) {
  const auto check_count = [&](const char* what, size_t count) {
    if (count != 0 && count != static_cast<size_t>(ranks)) {
      throw ConfigError(fmt::format("{}: expected one for each of {} ranks, got {}", what, ranks, count));
    }
  };
  check_count("threads per rank", options.threads_of_rank.size());
  check_count("rank slowdown", options.slowdown_of_rank.size());
  const int processors = static_cast<int>(AvailableProcessors().size());
  std::vector<CpuRankShare> shares;
  for (size_t i = 0; i < static_cast<size_t>(ranks); ++i) {
    CpuRankShare share;
    share.threads =
        options.threads_per_rank != 0 ? options.threads_per_rank : std::max(1, processors / (ranks * processes));
    if (!options.threads_of_rank.empty()) share.threads = options.threads_of_rank[i];
    if (!options.slowdown_of_rank.empty()) share.slowdown = options.slowdown_of_rank[i];
    if (share.threads < 1 || share.threads > kMaxThreadsPerRank) {
      throw ConfigError(fmt::format("threads per rank: expected 1 to {}, got {}", kMaxThreadsPerRank, share.threads));
    }
    if (!(share.slowdown >= 1 && share.slowdown <= kMaxSlowdown)) {
      throw ConfigError(fmt::format("rank slowdown: expected 1 to {}, got {}", kMaxSlowdown, share.slowdown));
    }
    shares.push_back(share);
  }
  return shares;
}

/// Refuses threads that the system will not start: the run-time of OpenMP would end the process. A rank's own thread
/// is one of them.
void CheckThreads(const std::vector<CpuRankShare>& shares, const std::vector<RankDevice>& devices) {
  int threads = 0;
  for (size_t i = 0; i < shares.size(); ++i) threads += devices[i].gpu ? 1 : shares[i].threads;
  const int startable = StartableThreads(threads);
  if (startable >= threads) return;
  throw ConfigError(
      fmt::format("--threads-per-rank: {} threads on {} rank{} are too many here: {} can be started "
                  "(limits on threads and on memory)",
                  threads, shares.size(), shares.size() == 1 ? "" : "s", startable));
}

/// "cuda:1 (NVIDIA H200)" without the number: GPUs of a kind cost the same.
std::string KindOf(const std::string& name) {
  const size_t open = name.find('(');
  return open == std::string::npos || name.back() != ')' ? name : name.substr(open + 1, name.size() - open - 2);
}

/// What measurements of these ranks hold for: the GPUs, or the processor, how many there are, and each rank's
/// threads.
std::vector<std::string> DeviceNames(const std::vector<std::unique_ptr<Rank>>& ranks,
                                     const std::vector<CpuRankShare>& shares) {
  const std::string cpu = fmt::format("{} x {}", AvailableProcessors().size(), CpuModel());
  std::vector<std::string> names;
  for (size_t i = 0; i < ranks.size(); ++i) {
    const auto& [threads, slowdown] = shares[i];
    names.push_back(ranks[i]->gpu() ? KindOf(ranks[i]->device().name())
                                    : fmt::format("{}, {} thread{}", cpu, threads, threads == 1 ? "" : "s"));
    if (slowdown > 1) names.back() += fmt::format(", slowed {} times", slowdown);
  }
  return names;
}

/// The first GPU loads the weights and reports the progress; the others copy them from there, or load them too where
/// they cannot reach it. Each warms up on its rank's thread.
void LoadOnEach(const ModelConfig& config, DType compute, WeightFormat format,
                const std::function<void(double)>& progress, const std::vector<std::unique_ptr<Rank>>& ranks,
                std::vector<std::shared_ptr<const Decoder>>& decoders) {
  std::promise<std::shared_ptr<const Decoder>> first;
  const std::shared_future<std::shared_ptr<const Decoder>> loaded = first.get_future().share();
  const auto load_first = [&] {
    try {
      first.set_value(LoadDecoder(config, compute, ranks.front()->ops(), progress, format));
    } catch (...) {
      first.set_exception(std::current_exception());
    }
  };
  std::vector<std::future<void>> done;
  for (size_t i = 0; i < ranks.size(); ++i) {
    done.push_back(ranks[i]->Post([&, i] {
      Rank& rank = *ranks[i];
      if (i == 0) load_first();
      if (i == 0) {
        decoders[i] = loaded.get();
      } else if (rank.device().Reaches(ranks.front()->device())) {
        decoders[i] = loaded.get()->CopyTo(rank.ops());
      } else {
        decoders[i] = LoadDecoder(config, compute, rank.ops(), {}, format);
      }
      decoders[i]->WarmUp(rank.ops(), rank.stream());
    }));
  }
  // Wait for all first: a failure rethrown by get() ends the ranks.
  for (const std::future<void>& future : done) future.wait();
  for (std::future<void>& future : done) future.get();
}

/// What process 0 must know of the ranks here, but for their pages.
std::vector<RankFacts> FactsOf(const std::vector<std::unique_ptr<Rank>>& ranks,
                               const std::vector<CpuRankShare>& shares) {
  const std::vector<std::string> kinds = DeviceNames(ranks, shares);
  std::vector<RankFacts> facts;
  for (size_t i = 0; i < ranks.size(); ++i) {
    facts.push_back({ranks[i]->device().name(), kinds[i], shares[i].threads, shares[i].slowdown, 0});
  }
  return facts;
}

/// What plans know of the ranks, all of which are like `facts`.
PhasePlanner PlannerFor(const WorkShape& shape, DType compute, const std::vector<RankFacts>& facts, bool on_gpu,
                        const LinkOptions& links, const std::string& tuned_folder) {
  ProfileKey key{shape.ToString(), std::string(Name(compute)), {}};
  std::vector<CpuRankShare> shares;
  for (const RankFacts& rank : facts) {
    key.devices.push_back(rank.kind);
    shares.push_back({rank.threads, rank.slowdown});
  }
  const auto ranks = static_cast<int>(facts.size());
  PhasePlanner planner(shape, key, on_gpu ? AssumedGpuCosts(shape, ranks) : AssumedCpuCosts(shape, shares), links);
  planner.Use(LoadTuned(tuned_folder, planner.key(), planner.table_key()));
  return planner;
}

}  // namespace

void CheckGroup(const EngineState& engine) {
  if (const std::string lost = LostOf(engine); !lost.empty()) throw LinkError(lost);
}

std::unique_ptr<EngineGroup> JoinGroup(const ModelConfig& config, const EngineOptions& options) {
  if (options.group == nullptr) return nullptr;
  if (!options.link_bandwidth.empty() || !options.rank_bandwidth.empty()) {
    throw ConfigError("link bandwidth: links between processes cannot be limited");
  }
  const std::vector<RankDevice> devices = ParseDevices(options.devices);
  const bool on_gpu = devices.front().gpu.has_value();
  const BuildInfo build = DescribeBuild();
  const DType compute = ComputeDType(options.dtype, config.WeightDType(), devices.front());
  auto group = std::make_unique<EngineGroup>();
  group->processes = std::make_shared<ProcessGroup>(
      *options.group,
      ProcessGroup::Facts{{"version", fmt::format("{} {}", build.version, build.commit)},
                          {"model", ModelFingerprint(config.dir())},
                          {"devices", on_gpu ? "cuda" : "cpu"},
                          {"dtype", std::string(Name(compute))},
                          {"weights", std::string(Name(WeightFormatOf(options.weights, on_gpu)))},
                          {"deterministic", options.deterministic ? "yes" : "no"},
                          {"on failure", options.group->replan ? "replan" : "fail"},
                          {"timeout", fmt::format("{} s", options.timeout_s)}},
      static_cast<int>(devices.size()));
  return group;
}

std::shared_ptr<EngineState> LoadEngineState(const ModelConfig& config, const EngineOptions& options,
                                             std::unique_ptr<EngineGroup> group) {
  const std::vector<RankDevice> devices = ParseDevices(options.devices);
  const int ranks = static_cast<int>(devices.size());
  const bool on_gpu = devices.front().gpu.has_value();
  const ProcessGroup* const processes = group == nullptr ? nullptr : group->processes.get();
  const int processes_here = processes == nullptr ? 1 : processes->processes_here();
  const int first = processes == nullptr ? 0 : processes->FirstRank(processes->process());
  const std::vector<CpuRankShare> shares = SharesOf(options, ranks, processes_here);
  LinkOptions links = ParseLinkOptions(options, ranks);
  links.wire.threads = shares.front().threads;
  if (on_gpu && links.wire.format != WireFormat::kExact) {
    throw ConfigError(fmt::format("wire: '{}' is not supported on GPUs yet: their rows travel exact", options.wire));
  }
  if (!(options.timeout_s > 0) || options.timeout_s > kMaxTimeoutSeconds) {
    throw ConfigError(fmt::format("timeout: expected a number of seconds above 0, got {}", options.timeout_s));
  }
  const DType compute = ComputeDType(options.dtype, config.WeightDType(), devices.front());
  const WeightFormat format = WeightFormatOf(options.weights, on_gpu);
  CheckThreads(shares, devices);

  std::vector<std::unique_ptr<Rank>> workers;
  std::vector<int> threads;  // of all ranks on this host, this process's from `before` on
  for (int i = 0; i < processes_here; ++i) {
    for (const CpuRankShare& share : shares) threads.push_back(share.threads);
  }
  const int before = processes == nullptr ? 0 : processes->number_here() * ranks;
  for (int i = 0; i < ranks; ++i) {
    const CpuRankShare& share = shares[static_cast<size_t>(i)];
    const std::vector<int> bound_to = on_gpu ? std::vector<int>() : ProcessorsOf(before + i, threads);
    workers.push_back(std::make_unique<Rank>(first + i, devices[static_cast<size_t>(i)], share.threads, bound_to,
                                             share.slowdown, options.deterministic));
  }
  std::vector<std::shared_ptr<const Decoder>> decoders(workers.size());
  if (on_gpu) {
    LoadOnEach(config, compute, format, options.on_load_progress, workers, decoders);
  } else {
    const auto decoder = LoadDecoder(config, compute, workers.front()->ops(), options.on_load_progress, format);
    std::fill(decoders.begin(), decoders.end(), decoder);
  }
  const DecoderSpec& spec = decoders.front()->spec();
  std::vector<RankFacts> facts = FactsOf(workers, shares);
  if (group != nullptr) group->own = facts;
  if (processes != nullptr && processes->process() == 0) {
    group->remote = std::make_unique<RemoteRanks>(group->processes, spec.vocab);
    for (RankFacts rank : group->remote->facts()) {
      // What was measured within one process, or one host, says nothing of links between several.
      rank.kind += processes_here < processes->processes() ? ", of several hosts" : ", of another process";
      facts.push_back(std::move(rank));
    }
  }
  const Ops& ops = workers.front()->ops();
  const bool expands_latents = ops.abilities().expands_latents && compute != DType::kF32;
  const WorkShape shape = WorkShapeOf(spec, compute, format, ops.WeightDType(compute), expands_latents);
  PhasePlanner planner = PlannerFor(shape, compute, facts, on_gpu, links, options.tuned_folder);
  return std::make_shared<EngineState>(config.dir(), std::move(workers), shares.front().threads, std::move(decoders),
                                       options, std::move(links), std::move(planner), std::move(group));
}

std::shared_ptr<EngineState> LoadEngineState(const ModelConfig& config, const EngineOptions& options) {
  return LoadEngineState(config, options, JoinGroup(config, options));
}

}  // namespace runahead
