// The processes that share an engine's ranks, as one of them sees them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/deadline.h"
#include "group/group_messages.h"
#include "launch/rendezvous.h"
#include "link/link.h"
#include "link/ucx/ucx_fabric.h"
#include "runahead/group.h"
#include "tensor/device.h"
#include "wire/channel.h"
#include "wire/heartbeat.h"

namespace runahead {

/// Who is in the group, the connections to them, and the links between their ranks. From its begin to its end it
/// watches over the others: once one is lost, all links to its ranks fail. Where the group goes on without it,
/// process 0 tells the others whom it lost and who is back. Thread-safe, but for the receiving end of a connection,
/// which is one thread's.
class ProcessGroup {
 public:
  using Facts = std::vector<std::pair<std::string, std::string>>;
  using OnLost = std::function<void(int process, const std::string& reason)>;

  /// Meets the others; `own_ranks` of the ranks are here. Throws as Meet and MakeUcxPort do.
  ProcessGroup(const GroupOptions& options, Facts facts, int own_ranks);
  ~ProcessGroup();
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  [[nodiscard]] int process() const { return process_; }
  [[nodiscard]] int processes() const { return static_cast<int>(first_rank_.size()) - 1; }
  [[nodiscard]] int ranks() const { return static_cast<int>(process_of_.size()); }
  [[nodiscard]] int ProcessOf(int rank) const { return process_of_.at(static_cast<size_t>(rank)); }
  [[nodiscard]] int FirstRank(int process) const { return first_rank_.at(static_cast<size_t>(process)); }
  [[nodiscard]] int RanksOf(int process) const { return FirstRank(process + 1) - FirstRank(process); }
  /// Processes of this host, and this one's number among them.
  [[nodiscard]] int processes_here() const { return processes_here_; }
  [[nodiscard]] int number_here() const { return number_here_; }
  /// "rank 2 on hostb", or "ranks 2 to 3 on hostb".
  [[nodiscard]] std::string NameOf(int process) const;

  /// Whether the group goes on when another process than 0 is lost.
  [[nodiscard]] bool replan() const { return replan_; }

  /// At process 0 the connection to another, elsewhere that to process 0. One that comes back has a new one.
  [[nodiscard]] std::shared_ptr<Channel> ControlOf(int process);
  /// Sends; what fails loses the other process.
  void Tell(int process, GroupMessage type, std::string_view payload);

  /// Links between `members`, which are numbered as in the whole group, with an id that their processes share:
  /// `within` those here, by UCX between them. device: [own ranks]. They fail at once where one is lost. Throws
  /// LinkError.
  [[nodiscard]] std::shared_ptr<Fabric> NewLinks(uint64_t id, const std::vector<int>& members,
                                                 std::unique_ptr<Fabric> within, const std::vector<Device*>& devices);
  /// Memory that rows will be sent from and received in, and its end.
  void Register(std::span<std::byte> memory);
  void Forget(std::span<std::byte> memory);
  /// Fails all links that are alive.
  void FailLinks(const std::string& reason);

  /// From now on `on_lost` hears of each process that is lost, from any thread; at once of those that are. An empty
  /// one ends that: when it returns, nobody is being told.
  void WhenLost(OnLost on_lost);
  /// `process` is lost, unless that is known or it may go. `through`: the connection that says so, which counts while
  /// it is the process's own; null: nothing but the process itself.
  void Lose(int process, const std::string& why, const Channel* through = nullptr);
  /// Why the group cannot go on: who was lost first, and why. With replan() that is process 0, or one that was lost
  /// before WhenLost was called. Empty: it can.
  [[nodiscard]] std::string lost() const;

  /// At process 0 with replan(): a process that takes the place of one that was lost, or nothing by the deadline. It
  /// is lost until Join.
  [[nodiscard]] std::optional<int> Admit(Deadline deadline);
  /// A process that was admitted can work. False: it is lost again.
  [[nodiscard]] bool Join(int process);
  /// The process as Join, or Replace, knows it.
  [[nodiscard]] MemberProcess MemberOf(int process) const;
  /// GroupOptions::on_change
  void Report(const std::string& line) const;
  /// Elsewhere: process 0 says that `member` took the place of one that was lost. Fails naming what makes no sense.
  Status Replace(const MemberProcess& member);

 private:
  /// Links that are alive, and the processes that they join.
  struct Joined {
    std::weak_ptr<Fabric> links;
    std::set<int> processes;
  };

  void FailLinksTo(int process, const std::string& reason);
  [[nodiscard]] std::set<int> ProcessesOf(const std::vector<int>& ranks) const;
  /// Why links that join `processes` cannot be used; empty: they can. With mutex_ held.
  [[nodiscard]] std::string ObstacleTo(const std::set<int>& processes) const;
  void SetMember(const MemberProcess& member);

  int process_;
  bool replan_;
  std::function<void(const std::string&)> on_change_;
  std::vector<int> process_of_;  // [ranks]
  std::vector<int> first_rank_;  // [processes + 1]
  int processes_here_ = 0;
  int number_here_ = 0;
  std::shared_ptr<UcxPort> port_;
  std::unique_ptr<Door> door_;  // at process 0 with replan_

  mutable std::mutex mutex_;
  std::vector<MemberProcess> members_;             // [processes], guarded by mutex_
  std::vector<UcxPeer> peers_;                     // [ranks], guarded by mutex_
  std::vector<std::shared_ptr<Channel>> control_;  // guarded by mutex_
  std::vector<Joined> links_;                      // guarded by mutex_
  std::map<int, std::string> lost_;                // processes and why, guarded by mutex_
  std::set<int> coming_;                           // those of them that were admitted, guarded by mutex_
  std::string first_lost_;                         // lost(), guarded by mutex_
  std::mutex telling_;
  OnLost on_lost_;                        // guarded by telling_
  std::unique_ptr<Heartbeat> heartbeat_;  // last: it uses all of the above
};

}  // namespace runahead
