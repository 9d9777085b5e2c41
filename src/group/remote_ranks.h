// The ranks of the other processes, as process 0 tells them what to do.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "group/process_group.h"
#include "worker/step_plan.h"

namespace runahead {

/// Sends steps to ranks elsewhere and hears their answers. Each step is answered once, with an error and
/// device_failed where its process was lost. Used by one thread; answers come from others.
class RemoteRanks {
 public:
  using Answer = std::function<void(StepResult result)>;
  using OnLost = std::function<void(const std::string& reason)>;

  /// Waits until the ranks of all others can work. Throws LinkError where one cannot, or is lost.
  RemoteRanks(std::shared_ptr<ProcessGroup> group, int64_t vocab);
  /// Ends the group's work.
  ~RemoteRanks();
  RemoteRanks(const RemoteRanks&) = delete;
  RemoteRanks& operator=(const RemoteRanks&) = delete;

  /// Of the ranks of the others, in their order.
  [[nodiscard]] const std::vector<RankFacts>& facts() const { return facts_; }

  /// Begins to hear. `on_lost` is told of each process that is lost, before the steps that it leaves are answered.
  void Listen(Answer answer, OnLost on_lost);
  /// The others end; no answer comes from here on.
  void StopListening();
  /// `links`: ProcessGroup::NewLinks of the step's gang; 0: none.
  void Post(int rank, const StepPlan& plan, uint64_t links);
  /// Makes room for positions, while no rank works.
  void Reserve(const PositionRoom& room);
  /// Links that are not used any more.
  void Forget(uint64_t links);
  /// Passes on which steps shall stop.
  void PassStops();
  /// The others end, for `reason`; empty: all is done. Does nothing the second time.
  void End(const std::string& reason);

 private:
  /// A step that is not answered.
  struct Told {
    std::vector<SequenceId> draws;  // sequences that it draws for
    std::shared_ptr<std::atomic<bool>> stop;
    bool stopping = false;  // its rank knows
  };
  using Key = std::pair<int, uint64_t>;  // rank and step

  void AwaitReady(int process);
  void Hear(int process);
  /// Fails naming what is wrong with it.
  [[nodiscard]] Status Take(int process, const WireMessage& message);
  void AnswerFor(int process, const std::string& reason);

  std::shared_ptr<ProcessGroup> group_;
  int64_t vocab_;
  std::vector<RankFacts> facts_;
  Answer answer_;
  OnLost on_lost_;
  std::mutex mutex_;
  std::map<Key, Told> told_;         // guarded by mutex_
  std::map<int, std::string> lost_;  // processes and why, guarded by mutex_
  std::atomic<bool> ending_ = false;
  std::vector<std::thread> listeners_;  // last: they use all of the above
};

}  // namespace runahead
