#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <set>

#include "engine/engine_group.h"
#include "engine/group_links.h"
#include "engine/session_state.h"
#include "runahead/engine.h"
#include "worker/sampler.h"

namespace runahead {
namespace {

/// Throws ConfigError for a value that its enum does not have.
void CheckEnums(const PrefillOptions& options) {
  static_cast<void>(Name(options.strategy));
  static_cast<void>(Name(options.topology.value_or(Topology::kChain)));
  static_cast<void>(Name(options.gather));
  static_cast<void>(Name(options.partition.kind));
}

double MillisecondsBetween(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double, std::milli>(end - begin).count();
}
double MillisecondsSince(Clock::time_point begin) { return MillisecondsBetween(begin, Clock::now()); }

/// A number that no session of this process had.
uint64_t NewSessionNumber() {
  static std::atomic<uint64_t> last = 0;
  return ++last;
}

}  // namespace

SessionState::SessionState(std::shared_ptr<EngineState> engine, int64_t capacity)
    : engine_(std::move(engine)), capacity_(capacity), here_(*engine_, capacity), number_(NewSessionNumber()) {
  if (engine_->group() != nullptr) links_ = std::make_unique<GroupLinks>(*engine_);
  logits_.resize(static_cast<size_t>(engine_->decoder().spec().vocab));
}

PrefillReport SessionState::Prefill(std::span<const int32_t> tokens, const PrefillOptions& options) {
  auto begin = Clock::now();
  CheckEnums(options);
  CheckPrompt(tokens);
  CheckGroup(*engine_);
  HeldEngine held = engine_->Hold();
  held.fabric().KeepTimes(options.record_timeline);
  if (options.record_timeline) begin = Clock::now();  // looking at clocks is no part of the phase
  const PhasePlan& plan = held.planner().PlanFor(static_cast<int64_t>(tokens.size()), options);
  size_ = 0;  // nothing, should this fail
  DropAhead();
  const PhaseOrder order{.session = number_,
                         .capacity = capacity_,
                         .tokens = {tokens.begin(), tokens.end()},
                         .strategy = options.strategy,
                         .topology = TopologyOf(plan.scheme),
                         .members = plan.members,
                         .cuts = plan.partition.cuts(),
                         .links = links_ != nullptr ? links_->IdFor(plan.members) : 0,
                         .record_timeline = options.record_timeline,
                         .wire = plan.wire};
  here_.Reserve(held, order);
  const bool gathers = options.strategy == Strategy::kTspDense || options.strategy == Strategy::kTspCausal;
  const bool by_nccl = gathers && options.gather == Gather::kNccl;
  if (by_nccl && order.links != 0) throw ConfigError("gather: nccl works in one process");
  AllGather* const gather = by_nccl ? &held.GatherOf(plan.members) : nullptr;
  PrefillReport report;
  RunRanks(held, order, plan.predicted_s, gather, begin, report);
  size_ = plan.partition.tokens();
  tokens_.assign(tokens.begin(), tokens.end());
  options_ = options;
  last_rank_ = plan.members.back();

  report.strategy = options.strategy;
  report.topology = order.topology;
  report.partition_kind = options.partition.kind;
  report.cuts = order.cuts;
  report.members = plan.members;
  report.plan = plan.reason;
  report.wire = plan.wire;
  report.predicted_ms = plan.predicted_s * 1e3;
  return report;
}

void SessionState::RunRanks(HeldEngine& held, const PhaseOrder& order, double planned_s, AllGather* gather,
                            Clock::time_point begin, PrefillReport& report) {
  std::vector<GivenWork> others;
  std::exception_ptr failure;
  const std::shared_ptr<Fabric> between = order.links == 0 ? nullptr : links_->For(held, order.members);
  {
    others = Tell(order, planned_s);
    PhaseHere here(here_, held, order, between == nullptr ? held.fabric() : *between, gather, begin);
    try {
      here.Await();
      report.timeline = here.Timeline();
      report.bytes_sent = here.Sent().bytes;
      report.wire_bound = here.Sent().bound;
      if (!here.logits().empty()) logits_ = here.logits();
    } catch (...) {
      failure = std::current_exception();
    }
  }
  try {
    AwaitOthers(std::move(others), order, begin, report);
  } catch (const std::exception& error) {
    if (between != nullptr) between->Fail(Status::Failed(error.what()));  // those that still wait give up
    if (!failure) failure = std::current_exception();
  }
  report.ttft_ms = MillisecondsSince(begin);
  if (!failure) return;
  if (links_ != nullptr) links_->Drop(order.members);
  held.RenewFabric();
  std::rethrow_exception(failure);
}

std::vector<GivenWork> SessionState::Tell(const PhaseOrder& order, double planned_s) {
  constexpr double kSlower = 10;  // times as slow as planned: costs that nobody measured are no more than a guess
  const std::string bytes = links_ != nullptr ? Encode(order) : "";
  std::vector<GivenWork> given;
  for (const int process : links_ != nullptr ? links_->OthersOf(order.members) : std::set<int>()) {
    elsewhere_.insert(process);
    given.push_back(
        GiveWork(*engine_, process, WorkKind::kPhase, bytes, std::chrono::duration<double>(kSlower * planned_s)));
  }
  return given;
}

void SessionState::AwaitOthers(std::vector<GivenWork> given, const PhaseOrder& order, Clock::time_point begin,
                               PrefillReport& report) {
  std::exception_ptr failure;
  for (GivenWork& work : given) {
    try {
      const RankWorkDone done = work.Await();
      PhaseAnswer answer;
      work.Take(Decode(done.answer, answer));
      // The other host's clock is not this one's: the message there took as long as the one back.
      const double way_ms = (MillisecondsBetween(work.sent, done.came) - done.seconds * 1e3) / 2;
      const double offset_ms = MillisecondsBetween(begin, work.sent) + std::max(0.0, way_ms);
      for (TimelineEvent& event : answer.timeline) {
        if (event.rank < 0 || event.rank >= std::ssize(order.members)) continue;
        event.begin_ms += offset_ms;
        event.end_ms += offset_ms;
        report.timeline.push_back(event);
      }
      report.bytes_sent += answer.bytes_sent;
      report.wire_bound = std::max(report.wire_bound, answer.wire_bound);
      if (answer.logits.size() == logits_.size()) logits_ = std::move(answer.logits);
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
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
  CheckGroup(*engine_);
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
  if (here_.Has(last_rank_)) {
    here_.Append(held, last_rank_, token, size_, logits_);
  } else {
    AppendElsewhere(token);
  }
  ++size_;
  tokens_.push_back(token);
}

void SessionState::AppendElsewhere(int32_t token) {
  const int process = engine_->group()->processes->ProcessOf(last_rank_);
  const TokenOrder order{number_, capacity_, last_rank_, size_, token};
  GivenWork work = GiveWork(*engine_, process, WorkKind::kToken, Encode(order));
  std::vector<float> logits;
  work.Take(Decode(work.Await().answer, logits));
  if (logits.size() != logits_.size()) work.Take(Status::Failed(fmt::format("it sent {} logits", logits.size())));
  logits_ = std::move(logits);
}

int32_t SessionState::AppendGreedy(int32_t token, bool go_on) {
  CheckAppend(token);
  if (!here_.Has(last_rank_)) {
    Append(token);
    return LikeliestToken(logits_);
  }
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
          const TensorView logits = here_.RunToken(
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

ChosenToken& SessionState::ChooseNext(Rank& rank, int32_t token, const PositionTables& tables) {
  const bool done_ahead = ahead_ && ahead_->position == size_ && ahead_->token == token;
  if (!done_ahead) {
    const TensorView logits = here_.RunToken(
        rank, {.tokens = std::span(&token, 1), .begin = size_, .tables = &tables, .cache = LastCache()});
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
  for (const int process : elsewhere_) {
    (void)GiveWork(*engine_, process, WorkKind::kEndSession, EncodeId(number_));
  }
}

std::vector<float> SessionState::CacheRows(int layer, bool values) {
  const int layers = engine_->decoder().spec().layers;
  if (layer < 0 || layer >= layers) {
    throw ConfigError(fmt::format("session: CacheRows: expected a layer from 0 to {}, got {}", layers - 1, layer));
  }
  if (size_ == 0) throw ConfigError("session: CacheRows needs a prefilled prompt");
  if (!here_.Has(last_rank_)) {
    throw ConfigError(fmt::format("session: CacheRows: rank {} is in another process", last_rank_));
  }
  const HeldEngine held = engine_->Hold();
  const KvSpan span = LastCache().Span(layer, 0, size_);
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
