#include "runahead/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/conductor.h"
#include "engine/engine_group.h"
#include "engine/engine_state.h"
#include "engine/request_state.h"
#include "engine/session_state.h"
#include "link/local/local_fabric.h"
#include "model/model_loader.h"
#include "model/weight_bytes.h"
#include "runahead/group.h"
#include "tensor/cpu_device.h"

namespace runahead {
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

EngineState::EngineState(std::filesystem::path model, std::vector<std::unique_ptr<Rank>> ranks, int threads_per_rank,
                         std::vector<std::shared_ptr<const Decoder>> decoders, EngineOptions options,
                         LinkOptions links, PhasePlanner planner, std::unique_ptr<EngineGroup> group)
    : model_(std::move(model)),
      group_(std::move(group)),
      first_rank_(ranks.front()->index()),
      decoders_(std::move(decoders)),
      threads_per_rank_(threads_per_rank),
      options_(std::move(options)),
      ranks_(std::move(ranks)),
      links_(std::move(links)),
      planner_(std::move(planner)),
      tables_(ranks_.size()) {
  CHECK_EQ(decoders_.size(), ranks_.size());
  device_names_.resize(group_ == nullptr ? ranks_.size() : static_cast<size_t>(group_->processes->ranks()));
  for (const auto& rank : ranks_) {
    if (rank->gpu()) gpus_.push_back(*rank->gpu());
    device_names_.at(static_cast<size_t>(rank->index())) = rank->device().name();
  }
  if (group_ != nullptr && group_->remote != nullptr) {
    auto name = device_names_.begin() + local_ranks();
    for (const RankFacts& facts : group_->remote->facts()) *name++ = facts.device;
  }
  CHECK(gpus_.empty() || gpus_.size() == ranks_.size());
  throttle_ = Throttle::MakeFor(this->ranks(), links_.rates);
  fabric_ = NewFabric();
}

EngineState::~EngineState() = default;

int EngineState::processes_here() const { return group_ == nullptr ? 1 : group_->processes->processes_here(); }

std::vector<Device*> EngineState::DevicesHere() const {
  std::vector<Device*> devices;
  for (const auto& rank : ranks_) devices.push_back(&rank->device());
  return devices;
}

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
  if (gpus_.empty()) return MakeLocalFabric(ranks(), throttle);
  std::vector<int> gpus(static_cast<size_t>(ranks()), gpus_.front());  // other processes' ranks have no links here
  std::copy(gpus_.begin(), gpus_.end(), gpus.begin() + first_rank_);
  return MakeCudaFabric(gpus, links_.through_host, throttle);
}

void HeldEngine::SetLinks(LinkOptions links) {
  links.wire.threads = engine_->threads_per_rank_;
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
  EngineState::Tables& both = engine_->tables_.at(engine_->IndexOf(memory));
  PositionTables& tables = long_sequence ? both.of_long : both.of_short;
  if (tables.positions < positions) {
    Rank& rank = engine_->rank(memory);
    rank.stream().Synchronize();  // a session may have left work ahead of its next token
    tables = decoder.MakePositions(rank.ops(), positions, long_sequence);
  }
  return tables;
}

RankWorker::Tables HeldEngine::TablesOf(int index) const {
  const EngineState::Tables& tables = engine_->tables_.at(engine_->IndexOf(engine_->MemoryOf(index)));
  return {&tables.of_short, &tables.of_long};
}

bool HeldEngine::LacksPositions(int index, int64_t positions, int64_t tokens) const {
  const EngineState::Tables& both = engine_->tables_.at(engine_->IndexOf(engine_->MemoryOf(index)));
  const bool long_sequence = engine_->decoder().spec().rope.IsLong(tokens);
  return (long_sequence ? both.of_long : both.of_short).positions < positions;
}

size_t HeldEngine::MissingPositionBytes(int index, int64_t positions, int64_t tokens) const {
  return LacksPositions(index, positions, tokens) ? engine_->decoder().PositionBytes(positions) : 0;
}

Engine::Engine(std::shared_ptr<EngineState> state) : state_(std::move(state)) {}

Engine Engine::Load(const std::filesystem::path& model_dir, const EngineOptions& options) {
  return Load(Model(model_dir), options);
}

Engine Engine::Load(const Model& model, const EngineOptions& options) {
  if (options.group != nullptr && options.group->process != 0) {
    throw ConfigError(fmt::format("engine: process 0 of a group has it, and this is process {}: it runs ServeRanks",
                                  options.group->process));
  }
  Engine engine(LoadEngineState(ConfigOf(model.WithContext(options.context)), options));
  // Caches of a given size and folders are refused at once, and a rank elsewhere that is lost is noticed.
  if (options.kv_memory > 0 || !options.cache_dir.empty() || options.group != nullptr) {
    (void)engine.State().conductor();
  }
  return engine;
}

std::shared_ptr<EngineState> StateOf(const Engine& engine) { return engine.state_; }

EngineState& Engine::State() const {
  if (state_ == nullptr) throw ConfigError("engine: it was moved from");
  return *state_;
}

int Engine::ranks() const { return State().ranks(); }
int Engine::threads_per_rank() const { return State().threads_per_rank(); }

std::vector<std::string> Engine::devices() const { return State().device_names(); }

EngineStatus Engine::Status() const { return State().Status(); }

std::string Engine::FlushCache() const { return State().conductor().FlushCache(); }

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
          WeightBytesOf(spec, format, State().rank(0).ops().WeightDType(compute), ExpertsCounted::kChosen).total()};
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
