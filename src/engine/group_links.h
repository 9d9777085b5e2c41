// What process 0 of a group needs to have ranks of several processes do something together beside steps.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "engine/engine_group.h"
#include "engine/rank_orders.h"

namespace runahead {

/// A number that no links of this group had or will have.
uint64_t NewLinksId();

/// Work of another process that is not answered yet.
struct GivenWork {
  std::string name;  // ranks and host of the process
  RemoteRanks::Given given;
  Clock::time_point sent;
  std::chrono::duration<double> longest{};  // longest wait of Await

  /// Throws LinkError naming the ranks, and why they failed or that they did not answer in time.
  [[nodiscard]] RankWorkDone Await();
  /// What was read of an answer; throws LinkError where that makes no sense.
  void Take(const Status& read) const;
};

/// Its answer may take EngineOptions::timeout_s longer than `planned`.
GivenWork GiveWork(EngineState& engine, int process, WorkKind kind, std::string order,
                   std::chrono::duration<double> planned = {});

/// Links between ranks of several processes, kept for each list of members. Borrows the engine, at process 0.
class GroupLinks {
 public:
  explicit GroupLinks(EngineState& engine) : engine_(engine) {}
  ~GroupLinks();
  GroupLinks(const GroupLinks&) = delete;
  GroupLinks& operator=(const GroupLinks&) = delete;

  /// Their id; 0: all members are here, and the engine's own links do.
  [[nodiscard]] uint64_t IdFor(const std::vector<int>& members);
  /// This process's end of them, numbered as all ranks are.
  [[nodiscard]] std::shared_ptr<Fabric> For(const HeldEngine& held, const std::vector<int>& members);
  /// They failed, or are not used any more.
  void Drop(const std::vector<int>& members);
  /// The other processes of `members`.
  [[nodiscard]] std::set<int> OthersOf(const std::vector<int>& members) const;

 private:
  struct Kept {
    uint64_t id = 0;
    std::shared_ptr<Fabric> here;
  };

  EngineState& engine_;
  std::map<std::vector<int>, Kept> kept_;
};

}  // namespace runahead
