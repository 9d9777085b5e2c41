#include "runahead/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/analytic_cost.h"
#include "engine/devices.h"
#include "engine/engine_state.h"
#include "engine/session_state.h"
#include "link/local/local_fabric.h"
#include "model/model_loader.h"
#include "tensor/cpu_device.h"

namespace runahead {
namespace {

constexpr int kMaxThreadsPerRank = 1024;
constexpr double kMaxTimeoutSeconds = 1e9;
// Matmul FLOP/s over attention FLOP/s on CPUs, as `runahead bench` measures both; partitions are not sensitive to it.
constexpr double kCpuAttentionSlowdown = 3;

DType ComputeDType(const std::string& asked, DType weights, const RankDevice& device) {
  if (!asked.empty()) {
    const std::optional<DType> dtype = ParseDType(asked);
    if (!dtype) throw ConfigError(fmt::format("dtype: unknown '{}' (known: f32, bf16, f16)", asked));
    return *dtype;
  }
  return PreferredDType(weights, device);
}

}  // namespace

EngineState::EngineState(std::vector<std::unique_ptr<Rank>> ranks, int threads_per_rank,
                         std::shared_ptr<const Decoder> decoder, double timeout_s)
    : decoder_(std::move(decoder)),
      threads_per_rank_(threads_per_rank),
      timeout_(timeout_s),
      ranks_(std::move(ranks)) {
  RenewFabric();
}

void EngineState::RenewFabric() { fabric_ = MakeLocalFabric(ranks()); }

const PositionTables& EngineState::PositionsFor(int64_t positions, int64_t tokens) {
  const bool long_sequence = decoder_->spec().rope.IsLong(tokens);
  PositionTables& tables = tables_[long_sequence ? 1 : 0];
  if (tables.positions < positions) tables = decoder_->MakePositions(rank(0).ops(), positions, long_sequence);
  return tables;
}

Partition EngineState::PartitionFor(int64_t tokens, const PrefillOptions& options) const {
  if (options.ranks < 0 || options.ranks > ranks()) {
    throw ConfigError(fmt::format("ranks: expected 1 to {}, got {}", ranks(), options.ranks));
  }
  const int used = options.ranks == 0 ? ranks() : options.ranks;
  switch (options.strategy) {
    case Strategy::kSingle:
      return EvenPartition(tokens, 1);
    case Strategy::kTspDense:
    case Strategy::kTspCausal:
      return EvenPartition(tokens, used);
    case Strategy::kRunahead:
      break;
  }
  switch (options.partition.kind) {
    case PartitionKind::kEven:
      return EvenPartition(tokens, used);
    case PartitionKind::kAuto:
      return BalancedPartition(tokens, used, AnalyticCost(decoder_->spec(), kCpuAttentionSlowdown));
    case PartitionKind::kManual:
      break;
  }
  const std::vector<double>& fractions = options.partition.fractions;
  if (fractions.size() != static_cast<size_t>(used)) {
    throw ConfigError(
        fmt::format("partition: expected {} fractions, one for each rank, got {}", used, fractions.size()));
  }
  return FractionPartition(tokens, fractions);
}

std::shared_ptr<EngineState> LoadEngineState(const std::filesystem::path& model_dir, const EngineOptions& options) {
  const std::vector<RankDevice> devices = ParseDevices(options.devices);
  const int ranks = static_cast<int>(devices.size());
  const bool on_gpu = devices.front().gpu.has_value();
  if (on_gpu && ranks > 1) {
    throw ConfigError(fmt::format("devices: '{}': a model runs on one GPU", options.devices));
  }
  if (options.threads_per_rank < 0 || options.threads_per_rank > kMaxThreadsPerRank) {
    throw ConfigError(
        fmt::format("threads per rank: expected 1 to {}, got {}", kMaxThreadsPerRank, options.threads_per_rank));
  }
  if (!(options.timeout_s > 0) || options.timeout_s > kMaxTimeoutSeconds) {
    throw ConfigError(fmt::format("timeout: expected a number of seconds above 0, got {}", options.timeout_s));
  }
  const int processors = static_cast<int>(AvailableProcessors().size());
  const int threads = options.threads_per_rank > 0 ? options.threads_per_rank : std::max(1, processors / ranks);
  const DType compute = ComputeDType(options.dtype, LoadSpec(model_dir).weights, devices.front());

  std::vector<std::unique_ptr<Rank>> workers;
  for (int i = 0; i < ranks; ++i) {
    const std::vector<int> bound_to = on_gpu ? std::vector<int>() : ProcessorsOf(i, ranks, threads);
    workers.push_back(std::make_unique<Rank>(i, devices[static_cast<size_t>(i)], threads, bound_to));
  }
  std::shared_ptr<const Decoder> decoder =
      LoadDecoder(model_dir, compute, workers.front()->ops(), options.on_load_progress);
  if (on_gpu) {
    Rank& rank = *workers.front();
    rank.Post([&] { decoder->WarmUp(rank.ops(), rank.stream()); }).get();
  }
  return std::make_shared<EngineState>(std::move(workers), threads, std::move(decoder), options.timeout_s);
}

Engine::Engine(std::shared_ptr<EngineState> state) : state_(std::move(state)) {}

Engine Engine::Load(const std::filesystem::path& model_dir, const EngineOptions& options) {
  return Engine(LoadEngineState(model_dir, options));
}

int Engine::ranks() const { return state_->ranks(); }
int Engine::threads_per_rank() const { return state_->threads_per_rank(); }

ModelFacts Engine::facts() const {
  const DecoderSpec& spec = state_->decoder().spec();
  const DType compute = state_->decoder().compute_dtype();
  return {spec.architecture, std::string(Name(compute)), spec.layers,
          spec.vocab,        spec.max_positions,         spec.kv_shape(compute).BytesPerToken()};
}

Session Engine::NewSession(int64_t capacity) const {
  return Session(std::make_unique<SessionState>(state_, capacity));
}

}  // namespace runahead
