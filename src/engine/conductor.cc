#include "engine/conductor.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <utility>

#include "base/deadline.h"
#include "engine/engine_group.h"
#include "engine/group_links.h"
#include "engine/page_archive.h"
#include "runahead/error.h"

namespace runahead {
Conductor::Conductor(EngineState& engine, const EngineOptions& options)
    : engine_(engine), remote_(engine.group() == nullptr ? nullptr : engine.group()->remote.get()) {
  if (!(options.max_pause_ms > 0)) {
    throw ConfigError(fmt::format("max pause: expected a number of ms above 0, got {}", options.max_pause_ms));
  }
  if (options.max_queued < 1) {
    throw ConfigError(fmt::format("queue: expected room for 1 request or more, got {}", options.max_queued));
  }
  HeldEngine held = engine.Hold();
  local_ = std::make_unique<LocalRanks>(held, options.kv_memory);
  Scheduler::Limits limits;
  limits.context = engine.decoder().spec().max_positions;
  limits.most_rows = kMostRows;
  limits.max_pause_s = options.max_pause_ms * 1e-3;
  limits.most_waiting = options.max_queued;
  limits.replan = engine.group() != nullptr && engine.group()->processes->replan();
  for (int rank = 0; rank < engine.local_ranks(); ++rank) limits.pages.push_back(local_->Pages(rank));
  if (remote_ != nullptr) {
    for (const RankFacts& rank : remote_->facts()) limits.pages.push_back(rank.pages);
  }
  forecast_ = std::make_unique<PlannerForecast>(held.planner(), engine.decoder().spec());
  Crew& crew = *this;
  archive_ = NewArchive(options);
  scheduler_ = std::make_unique<Scheduler>(crew, *forecast_, std::move(limits), archive_.get());
  status_ = scheduler_->Status();
  thread_ = std::thread([this] { Run(); });
  if (remote_ == nullptr) return;
  remote_->Listen([this](StepResult result) { Take(std::move(result)); },
                  [this](int process, const std::string& reason) {
                    Take(Change{process, reason, {}});
                  },
                  [this](int process, std::vector<RankFacts> ranks) {
                    Take(Change{process, "", std::move(ranks)});
                  });
}

Conductor::~Conductor() {
  {
    const std::lock_guard lock(mutex_);
    inbox_.stopping = true;
  }
  changed_.notify_all();
  thread_.join();
  archive_.reset();  // once it has saved what is left
  if (remote_ != nullptr) remote_->StopListening();
}

std::unique_ptr<PageArchive> Conductor::NewArchive(const EngineOptions& options) {
  if (options.cache_dir.empty()) return nullptr;
  const PageArchive::Listener listener{
      [this](uint64_t move, int64_t tokens) { Tell([this, move, tokens] { scheduler_->Loaded(move, tokens); }); },
      [this](uint64_t move) { Tell([this, move] { scheduler_->Saved(move); }); }};
  return std::make_unique<PageArchive>(engine_, options, local_->caches(), listener);
}

std::string Conductor::FlushCache() { return archive_ == nullptr ? "" : archive_->Flush(); }

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
  changed_.wait(lock, [this] {
    return inbox_.stopping || !inbox_.changes.empty() || !inbox_.messages.empty() || !inbox_.results.empty();
  });
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
  FinishSteps(inbox);
  for (const Message& message : inbox.messages) message();
  if (inbox.stopping) return;
  scheduler_->Work();
  if (remote_ != nullptr) remote_->PassStops();
}

void Conductor::FinishSteps(Inbox& inbox) {
  for (const Change& change : inbox.changes) {
    if (!change.lost.empty()) Heed(change);
  }
  for (StepResult& result : inbox.results) {
    if (result.device_failed) throw DeviceError(result.error);
    scheduler_->Finish(std::move(result));
  }
  for (const Change& change : inbox.changes) {  // what they left has been finished
    if (change.lost.empty()) Heed(change);
  }
}

void Conductor::Heed(const Change& change) {
  const ProcessGroup& group = *engine_.group()->processes;
  const bool lost = !change.lost.empty();
  if (lost && !group.replan()) throw DeviceError(change.lost);
  if (!lost && !remote_->Join(change.process)) return;
  std::erase_if(links_, [&](const auto& entry) {
    const auto& [members, links] = entry;
    const bool among = std::any_of(members.begin(), members.end(),
                                   [&](int member) { return group.ProcessOf(member) == change.process; });
    if (among) Forget(links);
    return among;
  });
  if (lost) remote_->TellLost(change.process, change.lost);
  int rank = group.FirstRank(change.process);
  for (; lost && rank < group.FirstRank(change.process + 1); ++rank) scheduler_->Lose(rank);
  for (const RankFacts& facts : change.ranks) scheduler_->Return(rank++, facts.pages);
}

void Conductor::Stop() {
  try {
    if (failure().empty()) {
      scheduler_->CancelAll();
      if (remote_ != nullptr) remote_->PassStops();
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
  if (remote_ != nullptr) remote_->End(failure());
}

void Conductor::LookForNews() const {
  constexpr std::chrono::milliseconds kPatience(20);
  if (!engine_.rank(0).gpu() || at_work_ == 0) return;
  const auto end = Clock::now() + kPatience;
  while (news_ == 0 && Clock::now() < end) std::this_thread::yield();
}

void Conductor::AwaitRest() {
  while (at_work_ > 0) {
    Inbox inbox = TakeResults();
    FinishSteps(inbox);
    if (remote_ != nullptr) remote_->PassStops();
  }
}

Conductor::Inbox Conductor::TakeResults() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !inbox_.changes.empty() || !inbox_.results.empty(); });
  Inbox taken;
  taken.changes = std::exchange(inbox_.changes, {});
  taken.results = std::exchange(inbox_.results, {});
  at_work_ -= static_cast<int>(std::ssize(taken.results));
  return taken;
}

int64_t Conductor::PositionsOf(int64_t tokens) const {
  return std::min(tokens, engine_.decoder().spec().max_positions);
}

bool Conductor::LacksPositions(int64_t tokens) const {
  const int64_t needed = PositionsOf(tokens);
  for (int rank = 0; rank < engine_.local_ranks(); ++rank) {
    for (const int64_t length : {int64_t{1}, needed}) {  // of short sequences, and of long ones where this is one
      if (held_->LacksPositions(rank, needed, length)) return true;
    }
  }
  return false;
}

void Conductor::ReservePositions(int64_t tokens) {
  const int64_t needed = PositionsOf(tokens);
  int64_t positions = 1024;
  while (positions < needed) positions *= 2;
  for (const int64_t length : {int64_t{1}, needed}) {
    for (int rank = 0; rank < engine_.local_ranks(); ++rank) {
      if (!held_->LacksPositions(rank, needed, length)) continue;
      held_->PositionsFor(rank, PositionsOf(positions), length);
      if (rank == 0 && remote_ != nullptr) remote_->Reserve({PositionsOf(positions), length});
    }
  }
}

void Conductor::Post(int rank, StepPlan plan, const std::shared_ptr<MeteredFabric>& fabric, uint64_t links) {
  ++at_work_;
  if (!IsHere(rank)) return remote_->Post(rank, plan, links);
  local_->Post(rank, std::move(plan), fabric, [this](StepResult result) { Take(std::move(result)); });
}

void Conductor::Take(StepResult result) {
  const std::lock_guard lock(mutex_);  // while it is held, the conductor does not go
  inbox_.results.push_back(std::move(result));
  ++news_;
  changed_.notify_all();
}

void Conductor::Take(Change change) {
  const std::lock_guard lock(mutex_);
  inbox_.changes.push_back(std::move(change));
  ++news_;
  changed_.notify_all();
}

void Conductor::Start(int rank, StepPlan plan) { Post(rank, std::move(plan), nullptr, 0); }

void Conductor::StartTogether(std::vector<StepPlan> plans) {
  const std::vector<int> members = plans.front().gang->members;
  const Links& links = LinksOf(members);
  const auto fabric = std::make_shared<MeteredFabric>(links.here, members);
  fabric->KeepTimes(plans.front().record_timeline);
  for (size_t i = 0; i < plans.size(); ++i) Post(members[i], std::move(plans[i]), fabric, links.id);
}

const Conductor::Links& Conductor::LinksOf(const std::vector<int>& members) {
  constexpr size_t kMostKept = 64;
  if (links_.size() >= kMostKept && !links_.contains(members)) {  // rounds keep their own
    for (const auto& [gang, links] : links_) Forget(links);
    links_.clear();
  }
  const auto known = links_.find(members);
  return known != links_.end() ? known->second : links_.emplace(members, NewLinks(members)).first->second;
}

Conductor::Links Conductor::NewLinks(const std::vector<int>& members) {
  if (make_fabric_) return {make_fabric_(), 0};
  std::unique_ptr<Fabric> within = held_->NewFabric();
  if (std::all_of(members.begin(), members.end(), [this](int member) { return IsHere(member); })) {
    return {std::move(within), 0};
  }
  const uint64_t id = NewLinksId();
  return {engine_.group()->processes->NewLinks(id, members, std::move(within), engine_.DevicesHere()), id};
}

void Conductor::Forget(const Links& links) {
  if (links.id != 0) remote_->Forget(links.id);
}

void Conductor::MakeFabricsBy(std::function<std::unique_ptr<Fabric>()> make) {
  make_fabric_ = std::move(make);
  links_.clear();
}

void Conductor::Renew(std::span<const int> members) {
  const auto known = links_.find(std::vector<int>(members.begin(), members.end()));
  if (known != links_.end()) {
    Forget(known->second);
    links_.erase(known);
  }
  for (const int member : members) {
    if (!IsHere(member)) continue;
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
