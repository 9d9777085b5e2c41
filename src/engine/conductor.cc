#include "engine/conductor.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <utility>

#include "base/deadline.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr int64_t kMostRows = 8192;  // rows of prompts in a step of one rank

/// Bytes of a rank's cache where nobody says: of what is free a share for each rank of this memory, less what steps
/// need. On the host half is left to others.
size_t FreeShare(EngineState& engine, int rank) {
  constexpr size_t kReserve = size_t{1} << 30;  // bytes for libraries and what they allocate later
  Rank& own = engine.rank(rank);
  size_t sharing = 0;
  for (int i = 0; i < engine.ranks(); ++i) sharing += engine.rank(i).gpu() == own.gpu() ? 1 : 0;
  const size_t free = own.gpu() ? own.device().FreeBytes() : own.device().FreeBytes() / 2;
  const Decoder& decoder = engine.decoder(rank);
  const int64_t rows = std::min(kMostRows, decoder.spec().max_positions);
  const size_t needed = sharing * own.MissingWorkspaceBytes(decoder, rows) +
                        2 * decoder.PositionBytes(decoder.spec().max_positions) + (own.gpu() ? kReserve : 0);
  return free > needed ? (free - needed) / sharing : 0;
}

std::vector<KvCache> MakeCaches(EngineState& engine, size_t asked) {
  std::vector<size_t> bytes;  // all before any is made
  for (int rank = 0; rank < engine.ranks(); ++rank) bytes.push_back(asked > 0 ? asked : FreeShare(engine, rank));
  std::vector<KvCache> caches;
  for (int rank = 0; rank < engine.ranks(); ++rank) {
    const Decoder& decoder = engine.decoder(rank);
    const KvShape shape = decoder.spec().kv_shape(decoder.compute_dtype());
    const size_t page_bytes = shape.BytesPerToken() * static_cast<size_t>(kPageRows);
    const size_t pages = std::min<size_t>(bytes[static_cast<size_t>(rank)] / page_bytes, size_t{1} << 24);
    if (pages == 0) {
      throw ConfigError(fmt::format("kv memory: {} bytes on rank {} hold no page of {} tokens, which takes {} bytes",
                                    bytes[static_cast<size_t>(rank)], rank, kPageRows, page_bytes));
    }
    try {
      caches.emplace_back(engine.rank(rank).device(), shape, static_cast<int64_t>(pages) * kPageRows);
    } catch (const ConfigError& error) {
      throw ConfigError(fmt::format("kv memory of rank {}: {}", rank, error.what()));
    }
  }
  return caches;
}

/// Time of all waits, s.
double WaitsIn(const std::vector<TimelineEvent>& timeline) {
  double ms = 0;
  for (const TimelineEvent& event : timeline) {
    if (event.activity == Activity::kWait) ms += event.end_ms - event.begin_ms;
  }
  return ms * 1e-3;
}

}  // namespace

Conductor::Conductor(EngineState& engine, const EngineOptions& options)
    : engine_(engine), caches_(MakeCaches(engine, options.kv_memory)) {
  if (!(options.max_pause_ms > 0)) {
    throw ConfigError(fmt::format("max pause: expected a number of ms above 0, got {}", options.max_pause_ms));
  }
  if (options.max_queued < 1) {
    throw ConfigError(fmt::format("queue: expected room for 1 request or more, got {}", options.max_queued));
  }
  HeldEngine held = engine.Hold();
  Scheduler::Limits limits;
  limits.context = engine.decoder().spec().max_positions;
  limits.most_rows = kMostRows;
  limits.max_pause_s = options.max_pause_ms * 1e-3;
  limits.most_waiting = options.max_queued;
  for (int rank = 0; rank < engine.ranks(); ++rank) {
    const auto index = static_cast<size_t>(rank);
    limits.pages.push_back(static_cast<int32_t>(caches_[index].capacity() / kPageRows));
    workers_.emplace_back(engine.rank(rank), engine.decoder(rank), caches_[index], held.TablesOf(rank),
                          engine.timeout());
  }
  forecast_ = std::make_unique<PlannerForecast>(held.planner(), engine.decoder().spec());
  Crew& crew = *this;
  scheduler_ = std::make_unique<Scheduler>(crew, *forecast_, std::move(limits));
  status_ = scheduler_->Status();
  thread_ = std::thread([this] { Run(); });
}

Conductor::~Conductor() {
  {
    const std::lock_guard lock(mutex_);
    inbox_.stopping = true;
  }
  changed_.notify_all();
  thread_.join();
}

Admission Conductor::Submit(Request request, std::vector<std::unique_ptr<Listener>> listeners) {
  const auto refuse = [this] {
    throw DeviceError(fmt::format("engine: it has failed and takes no requests: {}", failure()));
  };
  if (!failure().empty()) refuse();
  auto added = std::make_shared<std::promise<Admission>>();
  std::future<Admission> admission = added->get_future();
  auto what = std::make_shared<std::pair<Request, std::vector<std::unique_ptr<Listener>>>>(std::move(request),
                                                                                           std::move(listeners));
  Tell([this, added = std::move(added), what = std::move(what)] {
    const Request& asked = what->first;
    const int64_t tokens = std::ssize(asked.prompt) + asked.generation.max_new_tokens;
    if (LacksPositions(tokens)) AwaitRest();
    try {
      ReservePositions(tokens);
      added->set_value(scheduler_->Add(std::move(what->first), std::move(what->second)));
    } catch (const Error&) {  // of this request alone
      added->set_exception(std::current_exception());
    }
  });
  try {
    return admission.get();
  } catch (const std::future_error&) {  // it failed before it could answer
    refuse();
  }
  return {};
}

void Conductor::Cancel(SequenceId id, int count) {
  Tell([this, id, count] {
    for (int i = 0; i < count; ++i) scheduler_->Cancel(id + static_cast<SequenceId>(i));
  });
}

void Conductor::Tell(Message message) {
  {
    const std::lock_guard lock(mutex_);
    inbox_.messages.push_back(std::move(message));
    ++news_;
  }
  changed_.notify_all();
}

std::string Conductor::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

Conductor::Inbox Conductor::TakeInbox() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return inbox_.stopping || !inbox_.messages.empty() || !inbox_.results.empty(); });
  Inbox inbox = std::move(inbox_);
  inbox_ = Inbox();
  news_ = 0;
  at_work_ -= static_cast<int>(std::ssize(inbox.results));
  return inbox;
}

void Conductor::Run() {
  while (true) {
    LookForNews();
    Inbox inbox = TakeInbox();  // whose messages, should they not be heard, go behind a failure
    try {
      if (failure().empty()) Serve(inbox);
    } catch (const std::exception& error) {
      Fail(error.what());
    }
    if (inbox.stopping) return Stop();
    PublishStatus();
    if (at_work_ > 0) continue;
    if (held_ && !failure().empty()) held_->RenewFabric();
    if (!failure().empty() || scheduler_->idle()) held_.reset();
  }
}

void Conductor::Serve(Inbox& inbox) {
  if (!held_) held_.emplace(engine_);
  FinishSteps(std::move(inbox.results));
  for (const Message& message : inbox.messages) message();
  if (!inbox.stopping) scheduler_->Work();
}

void Conductor::FinishSteps(std::deque<StepResult> results) {
  for (StepResult& result : results) {
    if (result.device_failed) throw DeviceError(result.error);
    scheduler_->Finish(std::move(result));
  }
}

void Conductor::Stop() {
  try {
    if (failure().empty()) {
      scheduler_->CancelAll();
      AwaitRest();
    }
  } catch (const std::exception& error) {
    Fail(error.what());
  }
  while (at_work_ > 0) (void)TakeResults();
  held_.reset();  // by the thread that took the lock
}

void Conductor::Fail(const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    failure_ = reason.empty() ? "unknown" : reason;
  }
  scheduler_->Abandon(reason);
}

void Conductor::LookForNews() const {
  constexpr std::chrono::milliseconds kPatience(20);
  if (!engine_.rank(0).gpu() || at_work_ == 0) return;
  const auto end = Clock::now() + kPatience;
  while (news_ == 0 && Clock::now() < end) std::this_thread::yield();
}

void Conductor::AwaitRest() {
  while (at_work_ > 0) FinishSteps(TakeResults());
}

std::deque<StepResult> Conductor::TakeResults() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !inbox_.results.empty(); });
  std::deque<StepResult> results = std::exchange(inbox_.results, {});
  at_work_ -= static_cast<int>(std::ssize(results));
  return results;
}

int64_t Conductor::PositionsOf(int64_t tokens) const {
  return std::min(tokens, engine_.decoder().spec().max_positions);
}

bool Conductor::LacksPositions(int64_t tokens) const {
  const int64_t needed = PositionsOf(tokens);
  for (int rank = 0; rank < engine_.ranks(); ++rank) {
    for (const int64_t length : {int64_t{1}, needed}) {  // of short sequences, and of long ones where this is one
      if (held_->MissingPositionBytes(rank, needed, length) > 0) return true;
    }
  }
  return false;
}

void Conductor::ReservePositions(int64_t tokens) {
  const int64_t needed = PositionsOf(tokens);
  int64_t positions = 1024;
  while (positions < needed) positions *= 2;
  for (int rank = 0; rank < engine_.ranks(); ++rank) {
    for (const int64_t length : {int64_t{1}, needed}) {
      if (held_->MissingPositionBytes(rank, needed, length) == 0) continue;
      held_->PositionsFor(rank, PositionsOf(positions), length);
    }
  }
}

void Conductor::Post(int rank, StepPlan plan, std::shared_ptr<MeteredFabric> fabric) {
  auto shared = std::make_shared<const StepPlan>(std::move(plan));
  (void)engine_.rank(rank).Post([this, rank, shared, fabric = std::move(fabric)] {
    StepResult result = workers_[static_cast<size_t>(rank)].Run(*shared, fabric.get());
    if (fabric != nullptr) {
      const MeteredFabric::Meter& meter = fabric->Of(shared->member);
      result.bytes_sent = meter.bytes_sent;
      result.wait_s = std::max(meter.wait_s, WaitsIn(result.timeline));
    }
    const std::lock_guard lock(mutex_);  // while it is held, the conductor does not go
    inbox_.results.push_back(std::move(result));
    ++news_;
    changed_.notify_all();
  });
  ++at_work_;
}

void Conductor::Start(int rank, StepPlan plan) { Post(rank, std::move(plan), nullptr); }

void Conductor::StartTogether(std::vector<StepPlan> plans) {
  const std::vector<int> members = plans.front().gang->members;
  const auto fabric = std::make_shared<MeteredFabric>(FabricOf(members), members);
  fabric->KeepTimes(plans.front().record_timeline);
  for (size_t i = 0; i < plans.size(); ++i) Post(members[i], std::move(plans[i]), fabric);
}

const std::shared_ptr<Fabric>& Conductor::FabricOf(const std::vector<int>& members) {
  constexpr size_t kMostKept = 64;
  if (fabrics_.size() >= kMostKept && !fabrics_.contains(members)) fabrics_.clear();  // rounds keep their own
  std::shared_ptr<Fabric>& fabric = fabrics_[members];
  if (fabric == nullptr) fabric = make_fabric_ ? make_fabric_() : held_->NewFabric();
  return fabric;
}

void Conductor::MakeFabricsBy(std::function<std::unique_ptr<Fabric>()> make) {
  make_fabric_ = std::move(make);
  fabrics_.clear();
}

void Conductor::Renew(std::span<const int> members) {
  fabrics_.erase(std::vector<int>(members.begin(), members.end()));
  for (const int member : members) {
    const runahead::Status status = engine_.rank(member).stream().Drain(After(engine_.timeout()));
    if (!status.ok()) throw DeviceError(fmt::format("rank {}: {}", member, status.message()));
  }
}

void Conductor::PublishStatus() {
  EngineStatus status = scheduler_->Status();
  const std::lock_guard lock(mutex_);
  status_ = std::move(status);
}

EngineStatus Conductor::Status() const {
  const std::lock_guard lock(mutex_);
  EngineStatus status = status_;
  status.failed = !failure_.empty();  // said before any request hears of it
  status.failure = failure_;
  return status;
}

double Conductor::Now() const { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

}  // namespace runahead
