// The ranks of the other processes, as process 0 tells them what to do.
#pragma once

#include <atomic>
#include <functional>
#include <future>
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
/// device_failed where its process was lost, or as lost where the group goes on. Used by one thread; answers come
/// from others.
class RemoteRanks {
 public:
  using Answer = std::function<void(StepResult result)>;
  using OnLost = std::function<void(int process, const std::string& reason)>;
  using OnBack = std::function<void(int process, std::vector<RankFacts> ranks)>;

  /// Waits until the ranks of all others can work. Throws LinkError where one cannot, or is lost.
  RemoteRanks(std::shared_ptr<ProcessGroup> group, int64_t vocab);
  /// Ends the group's work.
  ~RemoteRanks();
  RemoteRanks(const RemoteRanks&) = delete;
  RemoteRanks& operator=(const RemoteRanks&) = delete;

  /// Of the ranks of the others, in their order.
  [[nodiscard]] const std::vector<RankFacts>& facts() const { return facts_; }

  /// Begins to hear. `on_lost` is told of each process that is lost, before the steps that it leaves are answered,
  /// and `on_back` of one that is ready to take its place: it gets no step before Join.
  void Listen(Answer answer, OnLost on_lost, OnBack on_back);
  /// The others learn that `process` is lost.
  void TellLost(int process, const std::string& reason);
  /// `process` gets steps from now on, and the others learn that it is back. False: it is lost again.
  [[nodiscard]] bool Join(int process);
  /// The others end; no answer comes from here on.
  void StopListening();
  /// `links`: ProcessGroup::NewLinks of the step's gang; 0: none.
  void Post(int rank, const StepPlan& plan, uint64_t links);
  /// Makes room for positions, while no rank works.
  void Reserve(const PositionRoom& room);
  /// Has the ranks of a process do something beside steps, behind what they were given before. Any thread may. The
  /// answer is an error where the process is lost.
  struct Given {
    uint64_t number = 0;
    std::future<RankWorkDone> done;
  };
  [[nodiscard]] Given Give(int process, uint32_t kind, std::string order);
  /// Work that goes on until then shall end.
  void StopWork(int process, uint64_t number);
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

  /// Its ranks, once they can work.
  [[nodiscard]] std::vector<RankFacts> AwaitReady(int process);
  void Hear(int process);
  /// Lets in those that come back, until the end.
  void KeepDoor();
  /// Hears one that came back.
  void Welcome(int process);
  [[nodiscard]] bool IsLost(int process);
  /// Tells all but `except` that are there.
  void TellOthers(int except, GroupMessage type, std::string_view payload);
  /// Fails naming what is wrong with it.
  [[nodiscard]] Status Take(int process, const WireMessage& message);
  [[nodiscard]] Status TakeWork(int process, const WireMessage& message);
  void AnswerFor(int process, const std::string& reason);

  std::shared_ptr<ProcessGroup> group_;
  int64_t vocab_;
  std::vector<RankFacts> facts_;
  Answer answer_;
  OnLost on_lost_;
  OnBack on_back_;
  std::vector<PositionRoom> rooms_;  // that there must be on all ranks
  std::mutex mutex_;
  std::map<Key, Told> told_;  // guarded by mutex_
  uint64_t works_ = 0;        // numbers that were given, guarded by mutex_
  std::map<std::pair<int, uint64_t>, std::promise<RankWorkDone>> given_;  // by process and number, guarded by mutex_
  std::map<int, std::string> lost_;                                       // processes and why, guarded by mutex_
  std::atomic<bool> listening_ = false;
  std::atomic<bool> ending_ = false;
  std::map<int, std::thread> listeners_;  // by process; they use all of the above
  std::thread door_;                      // last: it replaces listeners
};

}  // namespace runahead
