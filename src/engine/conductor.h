// Runs the requests of one engine: the thread that works with the scheduler, and the ranks that it tells what to do.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/engine_state.h"
#include "engine/planner_forecast.h"
#include "kv/kv_cache.h"
#include "runahead/request.h"
#include "schedule/scheduler.h"
#include "worker/rank_worker.h"

namespace runahead {

/// Holds the engine while requests run, so that sessions wait for their end. The caches of the ranks are made with
/// it. Thread-safe.
class Conductor final : private Crew {
 public:
  /// Throws ConfigError when the caches do not fit in memory.
  Conductor(EngineState& engine, const EngineOptions& options);
  /// Cancels what runs and waits for it.
  ~Conductor() override;
  Conductor(const Conductor&) = delete;
  Conductor& operator=(const Conductor&) = delete;

  /// Queues a request; throws what Scheduler::Add throws, and ConfigError for prefill options out of range.
  Admission Submit(Request request, std::unique_ptr<Listener> listener);
  void Cancel(SequenceId id);

 private:
  using Message = std::function<void()>;

  /// Passes a message to the thread.
  void Tell(Message message);
  void Run();
  /// The thread's: waits until no rank works.
  void AwaitRest();
  /// The thread's: makes tables for sequences of so many tokens, while no rank works.
  void ReservePositions(int64_t tokens);

  [[nodiscard]] int ranks() const override { return engine_.ranks(); }
  void Start(int rank, StepPlan plan) override;
  void StartTogether(std::vector<StepPlan> plans) override;
  void Renew() override;
  [[nodiscard]] double Now() const override;
  void Post(int rank, StepPlan plan, std::shared_ptr<Fabric> fabric);

  EngineState& engine_;
  std::vector<KvCache> caches_;      // [ranks]
  std::vector<RankWorker> workers_;  // [ranks]
  int64_t context_ = 0;              // most tokens of a sequence
  std::optional<HeldEngine> held_;   // while requests run; the thread's
  std::unique_ptr<PlannerForecast> forecast_;
  std::unique_ptr<Scheduler> scheduler_;  // the thread's

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Message> messages_;    // from those who ask, guarded by mutex_
  std::deque<StepResult> results_;  // from the ranks, guarded by mutex_
  bool stopping_ = false;           // guarded by mutex_
  std::thread thread_;              // last: it uses all of the above
};

}  // namespace runahead
