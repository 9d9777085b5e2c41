// A process whose ranks work for the engine of another.
#include <fmt/format.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <utility>

#include "engine/engine_group.h"
#include "engine/local_ranks.h"
#include "engine/work_here.h"
#include "group/step_check.h"
#include "launch/place.h"
#include "model/model_loader.h"
#include "runahead/group.h"
#include "wire/secret.h"
#include "wire/step_messages.h"

namespace runahead {
namespace {

constexpr auto kLook = std::chrono::milliseconds(200);  // between two looks whether somebody is lost

/// Does what process 0 says.
class RankServer {
 public:
  RankServer(EngineState& engine, size_t kv_memory)
      : engine_(engine), group_(*engine.group()->processes), held_(engine.Hold()), local_(held_, kv_memory) {
    work_ = std::make_unique<WorkHere>(
        held_, [this](const RankWorkDone& done) { group_.Tell(0, GroupMessage::kWorkDone, Encode(done)); });
    std::vector<RankFacts> facts = engine.group()->own;
    for (size_t i = 0; i < facts.size(); ++i)
      facts[i].pages = local_.Pages(engine.first_rank() + static_cast<int>(i));
    group_.Tell(0, GroupMessage::kReady, Encode(facts));
  }

  /// Ends what runs, and waits for it.
  ~RankServer() {
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [name, stop] : running_) *stop = true;
    }
    group_.FailLinks("the group's work has ended");
    work_.reset();
    for (int i = 0; i < engine_.local_ranks(); ++i) engine_.rank(engine_.first_rank() + i).Post([] {}).get();
  }
  RankServer(const RankServer&) = delete;
  RankServer& operator=(const RankServer&) = delete;

  /// Until process 0 says that it is over. Throws LinkError when somebody is lost, or process 0 talks nonsense.
  void Run(const std::function<bool()>& stop) {
    const std::shared_ptr<Channel> control = group_.ControlOf(0);
    while (!stop || !stop()) {
      std::optional<WireMessage> message;
      const Status heard = control->Receive(message, After(kLook));
      if (const std::string lost = group_.lost(); !lost.empty()) throw LinkError(lost);
      if (!heard.ok()) throw LinkError(fmt::format("{} is lost: {}", group_.NameOf(0), heard.message()));
      if (!message) continue;
      if (message->type == static_cast<uint16_t>(GroupMessage::kEnd)) {
        if (!message->payload.empty()) throw LinkError(message->payload);
        return;
      }
      if (const Status done = Obey(*message); !done.ok()) {
        throw LinkError(fmt::format("{}: {}", group_.NameOf(0), done.message()));
      }
    }
  }

 private:
  using Name = std::pair<int, uint64_t>;  // rank and step

  [[nodiscard]] Status Obey(const WireMessage& message) {
    switch (static_cast<GroupMessage>(message.type)) {
      case GroupMessage::kReserve:
        return Reserve(message.payload);
      case GroupMessage::kStep:
        return Start(message.payload);
      case GroupMessage::kStop:
        return Stop(message.payload);
      case GroupMessage::kForget:
        return Forget(message.payload);
      case GroupMessage::kLost:
        return Lose(message.payload);
      case GroupMessage::kBack:
        return TakeBack(message.payload);
      case GroupMessage::kWork:
        return Begin(message.payload);
      case GroupMessage::kWorkStop:
        return StopWork(message.payload);
      case GroupMessage::kReady:
      case GroupMessage::kTrouble:
      case GroupMessage::kResult:
      case GroupMessage::kWorkDone:
      case GroupMessage::kEnd:
        break;
    }
    return Status::Failed(fmt::format("it sent a message of type {}", message.type));
  }

  Status Reserve(std::string_view bytes) {
    PositionRoom room;
    if (Status read = Decode(bytes, room); !read.ok()) return read;
    const int64_t most = engine_.decoder().spec().max_positions;
    if (room.positions < 1 || room.positions > most || room.tokens < 1 || room.tokens > most) {
      return Status::Failed(
          fmt::format("positions: {} for {} tokens; {} at most", room.positions, room.tokens, most));
    }
    {
      const std::lock_guard lock(mutex_);
      if (!running_.empty()) return Status::Failed("positions: a rank is at work");
    }
    for (int i = 0; i < engine_.local_ranks(); ++i) {
      held_.PositionsFor(engine_.first_rank() + i, room.positions, room.tokens);
    }
    return Status::Ok();
  }

  Status Start(std::string_view bytes) {
    RankStep step;
    if (Status read = Decode(bytes, step); !read.ok()) return read;
    const int first = engine_.first_rank();
    if (step.rank < first || step.rank >= first + engine_.local_ranks()) {
      return Status::Failed(fmt::format("step {}: rank {} is not here", step.plan.step, step.rank));
    }
    if (Status fits = CheckStepPlan(step.plan, BoundsOf(step.rank)); !fits.ok()) {
      return Status::Failed(fmt::format("step {}: {}", step.plan.step, fits.message()));
    }
    const Name name(step.rank, step.plan.step);
    {
      const std::lock_guard lock(mutex_);
      if (!running_.emplace(name, step.plan.stop).second) {
        return Status::Failed(fmt::format("step {}: it came twice", step.plan.step));
      }
    }
    if (step.links == 0 && step.plan.gang != nullptr) {
      return Status::Failed(fmt::format("step {}: a gang without links", step.plan.step));
    }
    std::shared_ptr<MeteredFabric> fabric;
    if (step.plan.gang != nullptr) {
      fabric = std::make_shared<MeteredFabric>(LinksOf(step), step.plan.gang->members);
      fabric->KeepTimes(step.plan.record_timeline);
    }
    local_.Post(step.rank, std::move(step.plan), std::move(fabric), [this, name](const StepResult& result) {
      {
        const std::lock_guard lock(mutex_);
        running_.erase(name);
      }
      group_.Tell(0, GroupMessage::kResult, EncodeStepResult(result));
    });
    return Status::Ok();
  }

  [[nodiscard]] StepBounds BoundsOf(int rank) const {
    const RankWorker::Tables tables = held_.TablesOf(rank);
    return {rank,
            engine_.ranks(),
            engine_.decoder().spec().vocab,
            local_.Pages(rank),
            tables.of_short->positions,
            tables.of_long->positions,
            !engine_.on_gpus()};
  }

  /// The links of the step's gang.
  std::shared_ptr<Fabric> LinksOf(const RankStep& step) {
    constexpr size_t kMostKept = 4096;  // more than process 0 keeps
    if (links_.size() >= kMostKept) throw LinkError(fmt::format("{}: it forgets no links", group_.NameOf(0)));
    std::shared_ptr<Fabric>& links = links_[step.links];
    if (links == nullptr)
      links = group_.NewLinks(step.links, step.plan.gang->members, held_.NewFabric(), engine_.DevicesHere());
    return links;
  }

  Status Lose(std::string_view bytes) {
    LostProcess lost;
    if (Status read = Decode(bytes, lost); !read.ok()) return read;
    group_.Lose(lost.process, lost.why);
    return Status::Ok();
  }

  Status TakeBack(std::string_view bytes) {
    MemberProcess member;
    if (Status read = Decode(bytes, member); !read.ok()) return read;
    return group_.Replace(member);
  }

  Status Stop(std::string_view bytes) {
    StepName name;
    if (Status read = Decode(bytes, name); !read.ok()) return read;
    const std::lock_guard lock(mutex_);
    const auto found = running_.find({name.rank, name.step});
    if (found != running_.end()) *found->second = true;
    return Status::Ok();
  }

  Status Begin(std::string_view bytes) {
    RankWork work;
    if (Status read = Decode(bytes, work); !read.ok()) return read;
    work_->Begin(std::move(work));
    return Status::Ok();
  }

  Status StopWork(std::string_view bytes) {
    uint64_t number = 0;
    if (Status read = Decode(bytes, number); !read.ok()) return read;
    work_->Stop(number);
    return Status::Ok();
  }

  Status Forget(std::string_view bytes) {
    uint64_t id = 0;
    if (Status read = Decode(bytes, id); !read.ok()) return read;
    links_.erase(id);
    return Status::Ok();
  }

  EngineState& engine_;
  ProcessGroup& group_;
  HeldEngine held_;
  LocalRanks local_;
  std::map<uint64_t, std::shared_ptr<Fabric>> links_;  // by their ids
  std::mutex mutex_;
  std::map<Name, std::shared_ptr<std::atomic<bool>>> running_;  // guarded by mutex_
  std::unique_ptr<WorkHere> work_;                              // last: it uses all of the above
};

}  // namespace

std::optional<GroupOptions> FindGroup() {
  const std::optional<Place> place = FindPlace([](const char* name) { return std::getenv(name); });
  if (!place || place->ranks == 1) return std::nullopt;
  GroupOptions group;
  group.process = place->rank;
  group.processes = place->ranks;
  group.host = place->master_host;
  group.port = place->master_port;
  if (const char* const secret = std::getenv("RUNAHEAD_SECRET_FILE")) group.secret = ReadSecret(secret);
  return group;
}

std::string ReadGroupSecret(const std::filesystem::path& path) { return ReadSecret(path); }

void ServeRanks(const Model& model, const EngineOptions& options, const std::function<bool()>& stop) {
  if (options.group == nullptr || options.group->process == 0) {
    throw ConfigError("ranks: process 0 of a group has the engine, the others serve theirs");
  }
  const Model own = model.WithContext(options.context);
  const ModelConfig& config = ConfigOf(own);
  std::unique_ptr<EngineGroup> group = JoinGroup(config, options);
  const std::shared_ptr<ProcessGroup> processes = group->processes;
  std::shared_ptr<EngineState> engine;
  std::optional<RankServer> server;
  try {
    engine = LoadEngineState(config, options, std::move(group));
    server.emplace(*engine, options.kv_memory);
  } catch (const std::exception& error) {
    processes->Tell(0, GroupMessage::kTrouble, error.what());
    throw;
  }
  server->Run(stop);
}

}  // namespace runahead
