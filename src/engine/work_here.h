// What process 0 has the ranks of this process do beside steps.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "engine/engine_group.h"
#include "engine/probe_ranks.h"
#include "engine/session_ranks.h"

namespace runahead {

/// Does one thing after the other on a thread of its own, so that whoever listens to process 0 goes on listening.
/// Borrows the engine, which is held.
class WorkHere {
 public:
  using Answer = std::function<void(const RankWorkDone& done)>;

  WorkHere(HeldEngine& held, Answer answer);
  /// Ends what goes on until it is stopped, and waits for what is under way: links have failed before.
  ~WorkHere();
  WorkHere(const WorkHere&) = delete;
  WorkHere& operator=(const WorkHere&) = delete;

  void Begin(RankWork work);
  void Stop(uint64_t number);

 private:
  void Loop();
  /// The answer to `work`; empty: it was sent already. Throws what the work throws.
  void Do(const RankWork& work, const std::function<void(std::string)>& answer);
  [[nodiscard]] std::string RunPhase(const RankWork& work);
  [[nodiscard]] std::string RunToken(const RankWork& work);
  void RunShort(const RankWork& work, const std::function<void(std::string)>& answer);
  [[nodiscard]] std::string RunHops(const RankWork& work);
  ProbeRanks& ProbeOf(uint64_t number, const std::vector<int>& members, int64_t longest);
  SessionRanks& SessionOf(uint64_t number, int64_t capacity);
  /// Throws LinkError for ranks that are none, or twice there.
  void CheckMembers(const std::vector<int>& members) const;
  void CheckTokens(const std::vector<int32_t>& tokens) const;
  std::shared_ptr<Fabric> LinksOf(uint64_t id, const std::vector<int>& members);

  HeldEngine& held_;
  EngineState& engine_;
  Answer answer_;
  // The thread's:
  std::map<uint64_t, std::unique_ptr<SessionRanks>> sessions_;
  std::map<uint64_t, std::unique_ptr<ProbeRanks>> probes_;

  std::mutex mutex_;
  std::map<uint64_t, std::shared_ptr<Fabric>> links_;  // changed by the thread, guarded by mutex_
  std::condition_variable changed_;
  std::deque<RankWork> waiting_;       // guarded by mutex_
  uint64_t under_way_ = 0;             // its number, guarded by mutex_
  std::atomic<bool> stopped_ = false;  // whether the work under way shall end
  bool ending_ = false;                // guarded by mutex_
  std::thread thread_;                 // last: it uses all of the above
};

}  // namespace runahead
