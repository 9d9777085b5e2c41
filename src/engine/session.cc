#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <map>
#include <set>

#include "engine/member_fabric.h"
#include "engine/session_state.h"
#include "prefill/prefill.h"
#include "runahead/engine.h"
#include "tensor/memory_plan.h"
#include "worker/sampler.h"

namespace runahead {
namespace {

/// Keeps what the first rank to fail threw.
class FirstFailure {
 public:
  void Keep(std::exception_ptr failure) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::move(failure);
    happened_ = true;
  }
  void Rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }
  explicit operator bool() const { return failure_ != nullptr; }
  /// Set as soon as a failure is kept.
  [[nodiscard]] const std::atomic<bool>& happened() const { return happened_; }

 private:
  std::mutex mutex_;
  std::exception_ptr failure_;
  std::atomic<bool> happened_ = false;
};

/// Throws ConfigError for a value that its enum does not have.
void CheckEnums(const PrefillOptions& options) {
  static_cast<void>(Name(options.strategy));
  static_cast<void>(Name(options.topology.value_or(Topology::kChain)));
  static_cast<void>(Name(options.gather));
  static_cast<void>(Name(options.partition.kind));
}

}  // namespace

SessionState::SessionState(std::shared_ptr<EngineState> engine, int64_t capacity)
    : engine_(std::move(engine)), capacity_(capacity), caches_(static_cast<size_t>(engine_->ranks())) {
  const Decoder& decoder = engine_->decoder();
  if (capacity < 1 || capacity > decoder.spec().max_positions) {
    throw ConfigError(fmt::format("session: capacity must be from 1 to the model's context of {} tokens, got {}",
                                  decoder.spec().max_positions, capacity));
  }
  MemoryPlan plan;
  plan.Add("KV-cache",
           static_cast<size_t>(capacity) * decoder.spec().kv_shape(decoder.compute_dtype()).BytesPerToken());
  plan.CheckFits(fmt::format("a session of {} tokens", capacity), engine_->rank(0).device());
  logits_.resize(static_cast<size_t>(decoder.spec().vocab));
}

PrefillReport SessionState::Prefill(std::span<const int32_t> tokens, const PrefillOptions& options) {
  auto begin = Clock::now();
  CheckEnums(options);
  CheckPrompt(tokens);
  HeldEngine held = engine_->Hold();
  held.fabric().KeepTimes(options.record_timeline);
  if (options.record_timeline) begin = Clock::now();  // looking at clocks is no part of the phase
  const PhasePlan& plan = held.planner().PlanFor(static_cast<int64_t>(tokens.size()), options);
  size_ = 0;  // nothing, should this fail
  DropAhead();
  ReserveCaches(held, options.strategy, plan);
  for (const int member : plan.members) held.PositionsFor(member, capacity_, plan.partition.tokens());

  std::vector<RankTimeline> timelines;
  for (int rank = 0; rank < plan.partition.ranks(); ++rank) timelines.emplace_back(rank, begin);
  RunRanks(held, tokens, options, plan, timelines);
  size_ = plan.partition.tokens();
  tokens_.assign(tokens.begin(), tokens.end());
  options_ = options;
  last_rank_ = plan.members.back();

  PrefillReport report;
  report.strategy = options.strategy;
  report.topology = TopologyOf(plan.scheme);
  report.partition_kind = options.partition.kind;
  report.cuts = plan.partition.cuts();
  report.members = plan.members;
  report.plan = plan.reason;
  report.predicted_ms = plan.predicted_s * 1e3;
  report.ttft_ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  for (const RankTimeline& timeline : timelines) {
    report.timeline.insert(report.timeline.end(), timeline.events().begin(), timeline.events().end());
  }
  return report;
}

void SessionState::RunRanks(HeldEngine& held, std::span<const int32_t> tokens, const PrefillOptions& options,
                            const PhasePlan& plan, std::vector<RankTimeline>& timelines) {
  FirstFailure failure;
  const Partition& partition = plan.partition;
  MemberFabric fabric(held.fabric(), plan.members);
  const bool gathers = options.strategy == Strategy::kTspDense || options.strategy == Strategy::kTspCausal;
  AllGather* const gather = gathers && options.gather == Gather::kNccl ? &held.GatherOf(plan.members) : nullptr;
  std::vector<const PositionTables*> tables;
  for (const int member : plan.members) {
    tables.push_back(&held.PositionsFor(member, capacity_, partition.tokens()));
  }
  std::vector<std::future<void>> done;
  for (int index = 0; index < partition.ranks(); ++index) {
    Rank& rank = engine_->rank(plan.members[static_cast<size_t>(index)]);
    done.push_back(rank.Post([&, index] {
      try {
        RankPrefill job;
        job.tokens =
            tokens.subspan(static_cast<size_t>(partition.begin(index)), static_cast<size_t>(partition.rows(index)));
        job.strategy = options.strategy;
        job.topology = TopologyOf(plan.scheme);
        job.exchange = {index,
                        &partition,
                        engine_->decoder().spec().windows,
                        *caches_[static_cast<size_t>(rank.index())],
                        &fabric,
                        engine_->timeout(),
                        options.record_timeline ? &timelines[static_cast<size_t>(index)] : nullptr,
                        gather,
                        {},
                        {}};
        job.decoder = &engine_->decoder(rank.index());
        job.tables = tables[static_cast<size_t>(index)];
        job.workspace = &rank.WorkspaceFor(engine_->decoder(), partition.rows(index));
        job.ops = &rank.ops();
        job.stream = &rank.stream();
        job.slowdown = rank.slowdown();
        job.work_clock = rank.work_clock();
        job.given_up = &failure.happened();
        if (const Status status = PrefillRank(job); !status.ok()) {
          throw LinkError(fmt::format("rank {}: {}", rank.index(), status.message()));
        }
        if (index + 1 == partition.ranks()) FetchLogits(rank);
      } catch (const DeviceError& error) {  // names the device, which ranks may share
        const std::string reason = fmt::format("rank {}: {}", rank.index(), error.what());
        failure.Keep(std::make_exception_ptr(DeviceError(reason)));
        held.fabric().Fail(Status::Failed(reason));
      } catch (const std::exception& error) {
        failure.Keep(std::current_exception());
        held.fabric().Fail(Status::Failed(error.what()));
      }
    }));
  }
  for (std::future<void>& future : done) future.get();
  if (failure) held.RenewFabric();
  failure.Rethrow();
}

bool SessionState::ChangesAngles(int64_t tokens) const {
  const RopeSpec& rope = engine_->decoder().spec().rope;
  return rope.IsLong(tokens) != rope.IsLong(size_);
}

void SessionState::CheckAppend(int32_t token) const {
  if (size_ == 0) throw ConfigError("session: Append needs a prefilled prompt");
  if (size_ >= capacity_)
    throw ConfigError(fmt::format("session: all {} tokens of its capacity are used", capacity_));
  CheckToken(token, size_);
}

void SessionState::Append(int32_t token) {
  CheckAppend(token);
  if (ChangesAngles(size_ + 1)) {  // no key of the cache stays valid
    std::vector<int32_t> tokens = tokens_;
    tokens.push_back(token);
    options_.record_timeline = false;
    Prefill(tokens, PrefillOptions(options_));
    return;
  }
  HeldEngine held = engine_->Hold();
  const PositionTables& tables = held.PositionsFor(last_rank_, capacity_, size_ + 1);
  Rank& rank = engine_->rank(last_rank_);
  rank.Post([&] {
        RunToken(rank, {.tokens = std::span(&token, 1), .begin = size_, .tables = &tables, .cache = LastCache()});
        FetchLogits(rank);
      })
      .get();
  ++size_;
  tokens_.push_back(token);
}

int32_t SessionState::AppendGreedy(int32_t token, bool go_on) {
  CheckAppend(token);
  Rank& rank = engine_->rank(last_rank_);
  if (chosen_on_ != last_rank_) {
    const HeldEngine held = engine_->Hold();
    DropAhead();
    for (auto& chosen : chosen_) chosen = rank.ops().NewChosenToken();
    chosen_on_ = last_rank_;
  }
  if (chosen_[0] == nullptr || ChangesAngles(size_ + 1)) {
    Append(token);
    return LikeliestToken(logits_);
  }
  HeldEngine held = engine_->Hold();
  const PositionTables& tables = held.PositionsFor(last_rank_, capacity_, size_ + 1);
  int32_t next = -1;
  rank.Post([&] {
        ChosenToken& choice = ChooseNext(rank, token, tables);
        ahead_.reset();
        const bool ahead = go_on && size_ + 1 < capacity_ && !ChangesAngles(size_ + 2);
        if (ahead) {  // while the GPU is at work on this token
          const TensorView logits = RunToken(
              rank, {.tokens = {}, .chosen = &choice, .begin = size_ + 1, .tables = &tables, .cache = LastCache()});
          rank.ops().ChooseLikeliest(logits, *chosen_[0], rank.stream());
          ahead_ = Ahead{size_ + 1, -1};
        }
        next = choice.Wait();
        if (ahead) ahead_->token = next;
      })
      .get();
  if (next < 0) throw DeviceError(kNotANumberInLogits);
  ++size_;
  tokens_.push_back(token);
  return next;
}

TensorView SessionState::RunToken(Rank& rank, const Chunk& chunk) {
  Workspace& workspace = rank.WorkspaceFor(engine_->decoder(), 1);
  const Status status = engine_->decoder(last_rank_).Forward(chunk, workspace, rank.ops(), rank.stream());
  CHECK(status.ok());  // only an exchange can fail
  return workspace.Logits(1);
}

ChosenToken& SessionState::ChooseNext(Rank& rank, int32_t token, const PositionTables& tables) {
  const bool done_ahead = ahead_ && ahead_->position == size_ && ahead_->token == token;
  if (!done_ahead) {
    const TensorView logits =
        RunToken(rank, {.tokens = std::span(&token, 1), .begin = size_, .tables = &tables, .cache = LastCache()});
    rank.ops().ChooseLikeliest(logits, *chosen_[0], rank.stream());
  }
  std::swap(chosen_[0], chosen_[1]);
  return *chosen_[1];
}

void SessionState::DropAhead() {
  if (!ahead_) return;
  ahead_.reset();
  engine_->rank(chosen_on_).stream().Synchronize();
}

SessionState::~SessionState() {
  try {
    DropAhead();
  } catch (const Error&) {  // a failed device: nothing of it is in use any more
  }
}

std::vector<float> SessionState::CacheRows(int layer, bool values) {
  const int layers = engine_->decoder().spec().layers;
  if (layer < 0 || layer >= layers) {
    throw ConfigError(fmt::format("session: CacheRows: expected a layer from 0 to {}, got {}", layers - 1, layer));
  }
  if (size_ == 0) throw ConfigError("session: CacheRows needs a prefilled prompt");
  const HeldEngine held = engine_->Hold();
  const KvSpan span = caches_[static_cast<size_t>(last_rank_)]->Span(layer, 0, size_);
  const TensorView rows = values ? span.v : span.k;
  Rank& rank = engine_->rank(last_rank_);
  std::vector<std::byte> bytes(rows.bytes());
  rank.device().CopyToHost(bytes.data(), rows.data(), bytes.size(), rank.stream());
  return Dispatch(rows.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* elements = reinterpret_cast<const T*>(bytes.data());
    std::vector<float> wide(static_cast<size_t>(rows.shape().elements()));
    std::transform(elements, elements + wide.size(), wide.begin(), [](T x) { return static_cast<float>(x); });
    return wide;
  });
}

void SessionState::CheckPrompt(std::span<const int32_t> tokens) const {
  if (tokens.empty()) throw ConfigError("prompt: it has no tokens");
  if (static_cast<int64_t>(tokens.size()) > capacity_) {
    throw ConfigError(fmt::format("prompt: {} tokens do not fit the session's {}", tokens.size(), capacity_));
  }
  for (size_t i = 0; i < tokens.size(); ++i) CheckToken(tokens[i], static_cast<int64_t>(i));
}

void SessionState::CheckToken(int32_t token, int64_t position) const {
  const int64_t vocab = engine_->decoder().spec().vocab;
  if (token < 0 || token >= vocab) {
    throw ConfigError(
        fmt::format("prompt: token id {} at position {} is outside the vocabulary of {}", token, position, vocab));
  }
}

void SessionState::ReserveCaches(const HeldEngine& held, Strategy strategy, const PhasePlan& plan) {
  const KvShape shape = engine_->decoder().spec().kv_shape(engine_->decoder().compute_dtype());
  const Partition& partition = plan.partition;
  std::vector<int64_t> missing(static_cast<size_t>(partition.ranks()), 0);  // rows of each cache to make
  // One sum for each memory: ranks of one GPU share it, and so do all ranks of the CPU.
  std::map<int, std::pair<MemoryPlan, Device*>> needs;
  std::set<int> tables;  // memories whose tables are counted
  for (int rank = 0; rank < partition.ranks(); ++rank) {
    const int member = plan.members[static_cast<size_t>(rank)];
    Rank& worker = engine_->rank(member);
    auto& [here, device] = needs[worker.gpu().value_or(0)];
    device = &worker.device();
    const auto& cache = caches_[static_cast<size_t>(member)];
    const bool last = rank + 1 == partition.ranks();
    const int64_t rows = last ? capacity_ : runahead::CacheRows(strategy, partition, rank);
    if (!cache || cache->capacity() < rows) {
      missing[static_cast<size_t>(rank)] = rows;
      const int64_t freed = cache ? cache->capacity() : 0;
      here.Add("KV-cache", static_cast<size_t>(rows - freed) * shape.BytesPerToken());
    }
    here.Add("workspace", worker.MissingWorkspaceBytes(engine_->decoder(), partition.rows(rank)));
    if (tables.insert(engine_->MemoryOf(member)).second) {
      here.Add("position tables", held.MissingPositionBytes(member, capacity_, partition.tokens()));
    }
  }
  for (const auto& [memory, here] : needs) {
    here.first.CheckFits(
        fmt::format("a prompt of {} tokens and {} more on {} rank{}", partition.tokens(),
                    capacity_ - partition.tokens(), partition.ranks(), partition.ranks() == 1 ? "" : "s"),
        *here.second);
  }
  for (int rank = 0; rank < partition.ranks(); ++rank) {
    const int64_t rows = missing[static_cast<size_t>(rank)];
    if (rows == 0) continue;
    const int member = plan.members[static_cast<size_t>(rank)];
    caches_[static_cast<size_t>(member)].emplace(engine_->rank(member).device(), shape, rows);
  }
}

void SessionState::FetchLogits(Rank& rank) {
  const TensorView logits = rank.WorkspaceFor(engine_->decoder(), 1).Logits(1);
  rank.device().CopyToHost(logits_.data(), logits.data(), logits.bytes(), rank.stream());
}

Session::Session(std::unique_ptr<SessionState> state) : state_(std::move(state)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

SessionState& Session::State() const {
  if (state_ == nullptr) throw ConfigError("session: it was moved from");
  return *state_;
}

PrefillReport Session::Prefill(std::span<const int32_t> tokens, const PrefillOptions& options) {
  return State().Prefill(tokens, options);
}
void Session::Append(int32_t token) { State().Append(token); }
int32_t Session::AppendGreedy(int32_t token, bool go_on) { return State().AppendGreedy(token, go_on); }
std::span<const float> Session::logits() const { return State().logits(); }
int64_t Session::size() const { return State().size(); }
int64_t Session::capacity() const { return State().capacity(); }
std::vector<float> Session::CacheRows(int layer, bool values) const { return State().CacheRows(layer, values); }

}  // namespace runahead
