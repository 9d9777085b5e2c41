// The processes that share an engine's ranks, as one of them sees them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
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
/// watches over the others: once one is lost, all links fail. Thread-safe, but for the receiving end of a connection,
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
  [[nodiscard]] int processes() const { return static_cast<int>(members_.size()); }
  [[nodiscard]] int ranks() const { return static_cast<int>(process_of_.size()); }
  [[nodiscard]] int ProcessOf(int rank) const { return process_of_.at(static_cast<size_t>(rank)); }
  [[nodiscard]] int FirstRank(int process) const { return first_rank_.at(static_cast<size_t>(process)); }
  [[nodiscard]] int RanksOf(int process) const { return FirstRank(process + 1) - FirstRank(process); }
  /// Processes of this host, and this one's number among them.
  [[nodiscard]] int processes_here() const { return processes_here_; }
  [[nodiscard]] int number_here() const { return number_here_; }
  /// "rank 2 on hostb", or "ranks 2 to 3 on hostb".
  [[nodiscard]] std::string NameOf(int process) const;

  /// At process 0 the connection to another, elsewhere that to process 0.
  [[nodiscard]] Channel& ControlOf(int process);
  /// Sends; what fails loses the other process.
  void Tell(int process, GroupMessage type, std::string_view payload);

  /// Links of the whole group's ranks with an id that its processes share: `within` those here, by UCX between them.
  /// device: [own ranks]. Throws LinkError.
  [[nodiscard]] std::shared_ptr<Fabric> NewLinks(uint64_t id, std::unique_ptr<Fabric> within,
                                                 const std::vector<Device*>& devices);
  /// Memory that rows will be sent from and received in, and its end.
  void Register(std::span<std::byte> memory);
  void Forget(std::span<std::byte> memory);
  /// Fails all links that are alive.
  void FailLinks(const std::string& reason);

  /// From now on `on_lost` hears of each process that is lost, from any thread; at once of those that are. An empty
  /// one ends that: when it returns, nobody is being told.
  void WhenLost(OnLost on_lost);
  /// `process` is lost, unless that is known or it may go.
  void Lose(int process, const std::string& why);
  /// Who was lost first, and why; empty: nobody.
  [[nodiscard]] std::string lost() const;

 private:
  int process_;
  std::vector<MemberProcess> members_;  // [processes]
  std::vector<int> process_of_;         // [ranks]
  std::vector<int> first_rank_;         // [processes + 1]
  int processes_here_ = 0;
  int number_here_ = 0;
  std::vector<UcxPeer> peers_;  // [ranks]
  std::vector<std::unique_ptr<Channel>> control_;
  std::shared_ptr<UcxPort> port_;

  mutable std::mutex mutex_;
  std::vector<std::weak_ptr<Fabric>> links_;  // guarded by mutex_
  std::map<int, std::string> lost_;           // processes and why, guarded by mutex_
  std::string first_lost_;                    // guarded by mutex_
  std::mutex telling_;
  OnLost on_lost_;                        // guarded by telling_
  std::unique_ptr<Heartbeat> heartbeat_;  // last: it uses all of the above
};

}  // namespace runahead
