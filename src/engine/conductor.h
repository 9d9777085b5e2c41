// Runs the requests of one engine: the thread that works with the scheduler, and the ranks that it tells what to do.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine_state.h"
#include "engine/local_ranks.h"
#include "engine/metered_fabric.h"
#include "engine/planner_forecast.h"
#include "group/group_messages.h"
#include "runahead/engine_status.h"
#include "runahead/request.h"
#include "schedule/scheduler.h"

namespace runahead {

class PageArchive;
class RemoteRanks;

/// Holds the engine while requests run, so that sessions wait for their end. The caches of this process's ranks are
/// made with it. Thread-safe.
class Conductor final : private Crew {
 public:
  /// Throws ConfigError when the caches do not fit in memory.
  Conductor(EngineState& engine, const EngineOptions& options);
  /// Cancels what runs and waits for it.
  ~Conductor() override;
  Conductor(const Conductor&) = delete;
  Conductor& operator=(const Conductor&) = delete;

  /// Queues a request; throws what Scheduler::Add throws, and ConfigError for prefill options out of range.
  Admission Submit(Request request, std::vector<std::unique_ptr<Listener>> listeners);
  /// See Engine::FlushCache.
  [[nodiscard]] std::string FlushCache();
  /// Ends `count` choices, the first of which is `id`.
  void Cancel(SequenceId id, int count);

  /// Is called by the thread, between two steps. What it throws ends all requests and fails the conductor.
  using Message = std::function<void()>;
  void Tell(Message message);
  /// Why it failed and takes no requests any more; empty: it did not.
  [[nodiscard]] std::string failure() const;
  /// As it was when the thread went on last, or when a request ended since; the names of the devices are left out.
  /// Waits for nothing.
  [[nodiscard]] EngineStatus Status() const;
  /// For tests, within a message: gangs that come get their links from `make`.
  void MakeFabricsBy(std::function<std::unique_ptr<Fabric>()> make);

 private:
  /// A process of the group is lost, or back.
  struct Change {
    int process = 0;
    std::string lost;              // why; empty: it is back
    std::vector<RankFacts> ranks;  // of one that is back
  };
  /// What the thread has been told.
  struct Inbox {
    std::deque<Change> changes;      // of the group, which come before the results
    std::deque<Message> messages;    // from those who ask
    std::deque<StepResult> results;  // from the ranks
    bool stopping = false;
  };

  void Run();
  /// The thread's, as all below but failure_: what came since the last call; waits for something.
  [[nodiscard]] Inbox TakeInbox();
  /// While GPUs take short steps it looks for what has come before it sleeps, since to be woken takes longer than a
  /// step of answers can wait.
  void LookForNews() const;
  void Serve(Inbox& inbox);
  void FinishSteps(Inbox& inbox);
  /// The group goes on with other ranks.
  void Heed(const Change& change);
  void Take(Change change);
  /// Cancels what is left and waits for the ranks.
  void Stop();
  /// Ends all requests with an error, and takes none any more.
  void Fail(const std::string& reason);
  /// Waits until no rank works.
  void AwaitRest();
  /// Waits for results.
  [[nodiscard]] Inbox TakeResults();
  /// Positions that a sequence of so many tokens needs tables for.
  [[nodiscard]] int64_t PositionsOf(int64_t tokens) const;
  /// Whether sequences of so many tokens lack tables.
  [[nodiscard]] bool LacksPositions(int64_t tokens) const;
  /// Makes them, while no rank works.
  void ReservePositions(int64_t tokens);

  [[nodiscard]] int ranks() const override { return engine_.ranks(); }
  void Start(int rank, StepPlan plan) override;
  void StartTogether(std::vector<StepPlan> plans) override;
  void Renew(std::span<const int> members) override;
  void OnEnded() override { PublishStatus(); }
  [[nodiscard]] double Now() const override;
  /// The links of a gang, which are its own, so that they can fail without others.
  struct Links {
    std::shared_ptr<Fabric> here;
    uint64_t id = 0;  // ProcessGroup::NewLinks; 0: all members are here
  };

  void Post(int rank, StepPlan plan, const std::shared_ptr<MeteredFabric>& fabric, uint64_t links);
  [[nodiscard]] const Links& LinksOf(const std::vector<int>& members);
  [[nodiscard]] Links NewLinks(const std::vector<int>& members);
  /// Other processes need not keep `links`.
  void Forget(const Links& links);
  [[nodiscard]] bool IsHere(int rank) const { return rank < engine_.local_ranks(); }
  /// An answer to a step came, from any thread.
  void Take(StepResult result);
  void PublishStatus();

  /// Makes the archive, where there is to be one.
  [[nodiscard]] std::unique_ptr<PageArchive> NewArchive(const EngineOptions& options);

  EngineState& engine_;
  RemoteRanks* remote_;  // null: all ranks are here
  std::unique_ptr<LocalRanks> local_;
  std::optional<HeldEngine> held_;  // while requests run; the thread's
  std::unique_ptr<PlannerForecast> forecast_;
  std::unique_ptr<Scheduler> scheduler_;                  // the thread's
  std::function<std::unique_ptr<Fabric>()> make_fabric_;  // the thread's
  std::map<std::vector<int>, Links> links_;               // by the gang's members; the thread's
  int at_work_ = 0;  // steps that ranks were told and did not answer; the thread's

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Inbox inbox_;                           // guarded by mutex_
  std::string failure_;                   // guarded by mutex_
  EngineStatus status_;                   // guarded by mutex_
  std::atomic<int> news_ = 0;             // messages and results that came since the last look
  std::unique_ptr<PageArchive> archive_;  // null: there is none; its threads use the above
  std::thread thread_;                    // last: it uses all of the above
};

}  // namespace runahead
