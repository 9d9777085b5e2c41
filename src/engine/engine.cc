#include "runahead/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/thread_room.h"
#include "engine/conductor.h"
#include "engine/engine_state.h"
#include "engine/request_state.h"
#include "engine/session_state.h"
#include "link/local/local_fabric.h"
#include "model/model_loader.h"
#include "model/weight_bytes.h"
#include "ops/devices.h"
#include "prefill/work_shape_of.h"
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
  if (on_gpu && *format != WeightFormat::kStored) {
    throw ConfigError(fmt::format("--weights {}: CPU ranks have it, GPUs take weights as they are stored", asked));
  }
  return *format;
}

/// The threads and the slowdown of each rank. Throws ConfigError for what is out of range or not as many as ranks.
std::vector<CpuRankShare> SharesOf(const EngineOptions& options, int ranks) {
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
    share.threads = options.threads_per_rank != 0 ? options.threads_per_rank : std::max(1, processors / ranks);
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
void LoadOnEach(const ModelConfig& config, DType compute, const std::function<void(double)>& progress,
                const std::vector<std::unique_ptr<Rank>>& ranks,
                std::vector<std::shared_ptr<const Decoder>>& decoders) {
  std::promise<std::shared_ptr<const Decoder>> first;
  const std::shared_future<std::shared_ptr<const Decoder>> loaded = first.get_future().share();
  const auto load_first = [&] {
    try {
      first.set_value(LoadDecoder(config, compute, ranks.front()->ops(), progress));
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
        decoders[i] = LoadDecoder(config, compute, rank.ops());
      }
      decoders[i]->WarmUp(rank.ops(), rank.stream());
    }));
  }
  // Wait for all first: a failure rethrown by get() ends the ranks.
  for (const std::future<void>& future : done) future.wait();
  for (std::future<void>& future : done) future.get();
}

}  // namespace

std::string_view Name(RankActivity activity) {
  switch (activity) {
    case RankActivity::kIdle:
      return "idle";
    case RankActivity::kReading:
      return "reading";
    case RankActivity::kAnswering:
      return "answering";
    case RankActivity::kGang:
      return "gang";
  }
  throw ConfigError(fmt::format("rank activity: no value has the number {}", static_cast<int>(activity)));
}

EngineState::EngineState(std::vector<std::unique_ptr<Rank>> ranks, int threads_per_rank,
                         std::vector<std::shared_ptr<const Decoder>> decoders, EngineOptions options,
                         LinkOptions links, PhasePlanner planner)
    : decoders_(std::move(decoders)),
      threads_per_rank_(threads_per_rank),
      options_(std::move(options)),
      ranks_(std::move(ranks)),
      links_(std::move(links)),
      planner_(std::move(planner)),
      tables_(ranks_.size()) {
  CHECK_EQ(decoders_.size(), ranks_.size());
  for (const auto& rank : ranks_) {
    if (rank->gpu()) gpus_.push_back(*rank->gpu());
    device_names_.push_back(rank->device().name());
  }
  CHECK(gpus_.empty() || gpus_.size() == ranks_.size());
  throttle_ = Throttle::MakeFor(this->ranks(), links_.rates);
  fabric_ = NewFabric();
}

EngineState::~EngineState() = default;

Conductor& EngineState::conductor() {
  const std::lock_guard lock(making_conductor_);
  if (conductor_ == nullptr) conductor_ = std::make_unique<Conductor>(*this, options_);
  made_conductor_ = conductor_.get();
  return *conductor_;
}

EngineStatus EngineState::Status() const {
  EngineStatus status;
  if (const Conductor* const conductor = made_conductor_) status = conductor->Status();
  status.ranks.resize(device_names_.size());
  for (size_t i = 0; i < device_names_.size(); ++i) status.ranks[i].device = device_names_[i];
  return status;
}

std::unique_ptr<Fabric> EngineState::NewFabric(bool limited) const {
  const std::shared_ptr<Throttle> throttle = limited ? throttle_ : nullptr;
  return gpus_.empty() ? MakeLocalFabric(ranks(), throttle) : MakeCudaFabric(gpus_, links_.through_host, throttle);
}

void HeldEngine::SetLinks(LinkOptions links) {
  engine_->links_ = std::move(links);
  engine_->throttle_ = Throttle::MakeFor(engine_->ranks(), engine_->links_.rates);
  engine_->planner_.Limit(engine_->links_);
  engine_->fabric_.reset();
  engine_->fabric_ = NewFabric();
}

AllGather& HeldEngine::GatherOf(const std::vector<int>& members) {
  std::unique_ptr<AllGather>& gather = engine_->gathers_[members];
  if (!gather) {
    std::vector<int> gpus;
    for (const int member : members) {
      if (engine_->on_gpus()) gpus.push_back(engine_->gpus_.at(static_cast<size_t>(member)));
    }
    gather = MakeNcclAllGather(gpus);
  }
  return *gather;
}

void HeldEngine::RenewFabric() noexcept {
  engine_->gathers_.clear();  // ends what waits for a rank in vain
  engine_->fabric_.reset();
  try {
    for (const auto& rank : engine_->ranks_) rank->stream().Synchronize();
    engine_->fabric_ = NewFabric();
  } catch (const Error& error) {
    engine_->fabric_ = MakeLocalFabric(engine_->ranks());
    fabric().Fail(Status::Failed(error.what()));
  }
}

const PositionTables& HeldEngine::PositionsFor(int index, int64_t positions, int64_t tokens) {
  const int memory = engine_->MemoryOf(index);
  const Decoder& decoder = engine_->decoder(memory);
  const bool long_sequence = decoder.spec().rope.IsLong(tokens);
  EngineState::Tables& both = engine_->tables_.at(static_cast<size_t>(memory));
  PositionTables& tables = long_sequence ? both.of_long : both.of_short;
  if (tables.positions < positions) {
    Rank& rank = engine_->rank(memory);
    rank.stream().Synchronize();  // a session may have left work ahead of its next token
    tables = decoder.MakePositions(rank.ops(), positions, long_sequence);
  }
  return tables;
}

RankWorker::Tables HeldEngine::TablesOf(int index) const {
  const EngineState::Tables& tables = engine_->tables_.at(static_cast<size_t>(engine_->MemoryOf(index)));
  return {&tables.of_short, &tables.of_long};
}

size_t HeldEngine::MissingPositionBytes(int index, int64_t positions, int64_t tokens) const {
  const EngineState::Tables& both = engine_->tables_.at(static_cast<size_t>(engine_->MemoryOf(index)));
  const bool long_sequence = engine_->decoder().spec().rope.IsLong(tokens);
  const PositionTables& tables = long_sequence ? both.of_long : both.of_short;
  return tables.positions < positions ? engine_->decoder().PositionBytes(positions) : 0;
}

std::shared_ptr<EngineState> LoadEngineState(const ModelConfig& config, const EngineOptions& options) {
  const std::vector<RankDevice> devices = ParseDevices(options.devices);
  const int ranks = static_cast<int>(devices.size());
  const bool on_gpu = devices.front().gpu.has_value();
  const std::vector<CpuRankShare> shares = SharesOf(options, ranks);
  LinkOptions links = ParseLinkOptions(options, ranks);
  if (!(options.timeout_s > 0) || options.timeout_s > kMaxTimeoutSeconds) {
    throw ConfigError(fmt::format("timeout: expected a number of seconds above 0, got {}", options.timeout_s));
  }
  const DType compute = ComputeDType(options.dtype, config.WeightDType(), devices.front());
  const WeightFormat format = WeightFormatOf(options.weights, on_gpu);
  CheckThreads(shares, devices);

  std::vector<std::unique_ptr<Rank>> workers;
  std::vector<int> threads;
  for (const CpuRankShare& share : shares) threads.push_back(share.threads);
  for (int i = 0; i < ranks; ++i) {
    const CpuRankShare& share = shares[static_cast<size_t>(i)];
    const std::vector<int> bound_to = on_gpu ? std::vector<int>() : ProcessorsOf(i, threads);
    workers.push_back(std::make_unique<Rank>(i, devices[static_cast<size_t>(i)], share.threads, bound_to,
                                             share.slowdown, options.deterministic));
  }
  std::vector<std::shared_ptr<const Decoder>> decoders(workers.size());
  if (on_gpu) {
    LoadOnEach(config, compute, options.on_load_progress, workers, decoders);
  } else {
    const auto decoder = LoadDecoder(config, compute, workers.front()->ops(), options.on_load_progress, format);
    std::fill(decoders.begin(), decoders.end(), decoder);
  }
  const DType stored = workers.front()->ops().WeightDType(compute);
  const WorkShape shape = WorkShapeOf(decoders.front()->spec(), compute, format, stored);
  const ProfileKey key{shape.ToString(), std::string(Name(compute)), DeviceNames(workers, shares)};
  ClusterCosts assumed = on_gpu ? AssumedGpuCosts(shape, ranks) : AssumedCpuCosts(shape, shares);
  PhasePlanner planner(shape, key, std::move(assumed), links);
  planner.Use(LoadTuned(options.tuned_folder, planner.key(), planner.table_key()));
  return std::make_shared<EngineState>(std::move(workers), threads.front(), std::move(decoders), options,
                                       std::move(links), std::move(planner));
}

Engine::Engine(std::shared_ptr<EngineState> state) : state_(std::move(state)) {}

Engine Engine::Load(const std::filesystem::path& model_dir, const EngineOptions& options) {
  return Load(Model(model_dir), options);
}

Engine Engine::Load(const Model& model, const EngineOptions& options) {
  Engine engine(LoadEngineState(ConfigOf(model), options));
  if (options.kv_memory > 0) (void)engine.State().conductor();  // caches of a given size are refused at once
  return engine;
}

std::shared_ptr<EngineState> StateOf(const Engine& engine) { return engine.state_; }

EngineState& Engine::State() const {
  if (state_ == nullptr) throw ConfigError("engine: it was moved from");
  return *state_;
}

int Engine::ranks() const { return State().ranks(); }
int Engine::threads_per_rank() const { return State().threads_per_rank(); }

std::vector<std::string> Engine::devices() const {
  std::vector<std::string> names;
  for (int rank = 0; rank < State().ranks(); ++rank) names.push_back(State().rank(rank).device().name());
  return names;
}

EngineStatus Engine::Status() const { return State().Status(); }

ModelFacts Engine::facts() const {
  const DecoderSpec& spec = State().decoder().spec();
  const DType compute = State().decoder().compute_dtype();
  const WeightFormat format = State().decoder().weight_format();
  return {spec.architecture,
          std::string(Name(compute)),
          spec.layers,
          spec.vocab,
          spec.max_positions,
          spec.kv_shape(compute).BytesPerToken(),
          std::string(Name(format)),
          WeightBytesOf(spec, format, State().rank(0).ops().WeightDType(compute)).total()};
}

Session Engine::NewSession(int64_t capacity) const {
  static_cast<void>(State());
  return Session(std::make_unique<SessionState>(state_, capacity));
}

namespace {

RequestHandle SubmitTo(const std::shared_ptr<EngineState>& engine, Request request,
                       const std::shared_ptr<const Tokenizer>& tokenizer, std::shared_ptr<EventQueue> events,
                       EventSink sink) {
  CheckRequest(request, tokenizer.get(), engine->decoder().spec().vocab);
  const auto shared = std::make_shared<EventSink>(std::move(sink));
  const int choices = request.choices;
  std::vector<std::unique_ptr<Listener>> listeners;
  for (int choice = 0; choice < choices; ++choice) {
    listeners.push_back(std::make_unique<EventListener>(shared, choice, tokenizer, request.generation));
  }
  const Admission admission = engine->conductor().Submit(std::move(request), std::move(listeners));
  return RequestHandle(std::make_shared<RequestState>(engine, std::move(events), admission, choices));
}

}  // namespace

RequestHandle Engine::Submit(Request request, std::shared_ptr<const Tokenizer> tokenizer) const {
  static_cast<void>(State());
  auto events = std::make_shared<EventQueue>(request.choices);
  const auto push = [events](RequestEvent event) { events->Push(std::move(event)); };
  return SubmitTo(state_, std::move(request), tokenizer, events, push);
}

RequestHandle Engine::Submit(Request request, std::shared_ptr<const Tokenizer> tokenizer, EventSink sink) const {
  static_cast<void>(State());
  if (!sink) throw ConfigError("request: its sink of events is empty");
  return SubmitTo(state_, std::move(request), tokenizer, nullptr, std::move(sink));
}

}  // namespace runahead
