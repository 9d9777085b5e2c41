// What the processes of one group send each other, and who waits for it here.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "link/link.h"
#include "link/ucx/ucx_lane.h"
#include "link/ucx/ucx_message.h"
#include "link/ucx/ucx_worker.h"

namespace runahead {

/// One end of a span's journey.
struct UcxPost {
  KvSpan span;
  int from = 0;
  int to = 0;
  bool sending = false;
  UcxLane* lane = nullptr;              // way to the GPU that the span lies on; null: it is in host memory
  std::shared_ptr<std::byte> staging;   // [k, v], of a span on a GPU that UCX does not reach; else null
  std::shared_ptr<UcxLanding> landing;  // copy of rows that came up to the GPU; set before `moved` is
  std::byte* k = nullptr;               // what UCX reads or writes of the keys: the span's own, or staging
  std::byte* v = nullptr;
  ucs_memory_type_t memory = UCS_MEMORY_TYPE_HOST;  // where k and v are
  // For the port's thread alone:
  std::vector<int> missing{0, 1};  // pieces that have not begun to move
  int unfinished = 2;              // pieces that have not ended
  Clock::time_point began;
  // Guarded by UcxWaiters' mutex:
  bool moved = false;
  MovedAt when;
  Status refused;  // the two ends did not fit
};

/// What the ranks here wait on. Thread-safe.
class UcxWaiters {
 public:
  explicit UcxWaiters(std::function<void(const Status&)> on_failure) : on_failure_(std::move(on_failure)) {}

  /// Until both ends have posted and the rows moved. Fails when the group fails, or at the deadline.
  Status Await(const UcxPost& post, Deadline deadline);
  [[nodiscard]] std::optional<MovedAt> Moved(const UcxPost& post);
  void SetMoved(UcxPost& post);
  void Refuse(UcxPost& post, const Status& reason);
  /// Whether this is the first failure, which is kept.
  bool Fail(const Status& reason);
  [[nodiscard]] Status failure();

 private:
  std::function<void(const Status&)> on_failure_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Status failure_;  // failure of the whole group, guarded by mutex_
};

/// The group's part of the port's work. Methods are for the port's thread, but for those that say otherwise.
class UcxGroupState final : public UcxReceiver, public std::enable_shared_from_this<UcxGroupState> {
 public:
  UcxGroupState(UcxWorker& worker, const UcxGroup& group);

  // Any thread:
  [[nodiscard]] uint64_t id() const { return id_; }
  [[nodiscard]] bool IsOwn(int rank) const { return is_own_.at(static_cast<size_t>(rank)); }
  [[nodiscard]] UcxWaiters& waiters() { return waiters_; }
  /// Whether UCX works at nothing of this group, before the deadline.
  bool AwaitQuiet(Deadline deadline);

  void StartSend(const std::shared_ptr<UcxPost>& post);
  void StartReceive(const std::shared_ptr<UcxPost>& post);
  /// Tells all processes why the group failed.
  void TellFailure();
  /// Ends the connections over which something of this group is under way.
  void AbandonBusy();

  void Meet(const UcxHeader& header, std::string_view text) override;
  UcxMemory Land(const UcxHeader& header, size_t bytes) override;
  void Landed(const UcxHeader& header, const char* error) override;
  void Lost(const std::string& address, const std::string& why) override;

 private:
  /// What both ends posted on one link.
  struct Lane {
    uint64_t posted = 0;  // spans posted here so far
    std::map<uint64_t, std::shared_ptr<UcxPost>>
        waiting;                          // by number: posts that wait for the other end, or for rows
    std::map<uint64_t, UcxHeader> ready;  // by number: receivers that wait for a post here
  };

  Lane& LaneOf(int from, int to) { return lanes_[{from, to}]; }
  [[nodiscard]] UcxHeader HeaderOf(UcxHeader::Kind kind, const UcxPost& post, uint64_t number) const;
  /// Whether `header` names a link between a rank of its sender's, to which there are links, and one here.
  [[nodiscard]] bool IsOurs(const UcxHeader& header, bool sending) const;
  void Match(const std::shared_ptr<UcxPost>& post, const UcxHeader& ready);
  void Ended(const std::shared_ptr<UcxPost>& post, const std::string& address, const char* error);
  void Busy(const std::string& address, int change);
  [[nodiscard]] const std::string& AddressOf(int rank) const { return peers_.at(static_cast<size_t>(rank)).address; }

  UcxWorker& worker_;
  uint64_t id_;
  std::vector<UcxPeer> peers_;  // [ranks]
  std::vector<bool> is_own_;    // [ranks]
  UcxWaiters waiters_;
  std::map<std::pair<int, int>, Lane> lanes_;
  std::set<std::string> lost_;  // addresses of processes that are gone

  std::mutex busy_mutex_;
  std::condition_variable quiet_;
  std::map<std::string, int> busy_;  // by address: pieces that UCX works at, guarded by busy_mutex_
};

}  // namespace runahead
