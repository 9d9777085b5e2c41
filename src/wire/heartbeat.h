// Notices a process of the group that died, stopped or cannot be reached, whatever else it should be doing.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/descriptor.h"
#include "wire/channel.h"

namespace runahead {

/// A rank at the other end of a connection, and where it is.
struct HeartbeatPeer {
  int rank = 0;
  std::string host;
  std::unique_ptr<Channel> channel;  // for heartbeats alone
};

struct HeartbeatOptions {
  std::chrono::milliseconds every{500};
  std::chrono::milliseconds limit{2000};  // a silence that is longer means that the other is lost
};

/// Sends and expects beats on a thread of its own. With one connection to each other process at rank 0 and one to
/// rank 0 at each of them, rank 0 passes on whom it lost, and everybody learns it within every + limit + a round
/// trip.
class Heartbeat {
 public:
  /// Who is lost and why; called once for each rank, on the heartbeat's thread.
  using OnLost = std::function<void(int rank, const std::string& host, const std::string& why)>;

  Heartbeat(std::vector<HeartbeatPeer> peers, OnLost on_lost, HeartbeatOptions options = {});
  /// Watches over a rank that is back after it was lost.
  void Add(HeartbeatPeer peer);
  /// Says good-bye: the others do not miss this process.
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

 private:
  struct Watched;

  void Loop();
  void Sleep(Clock::time_point until);
  void Drain(Watched& peer);
  void Lose(int rank, const std::string& host, const std::string& why);
  void Beat();
  /// Takes in those that were added. Whether to stop.
  bool Wake();

  OnLost on_lost_;
  HeartbeatOptions options_;
  std::vector<std::unique_ptr<Watched>> peers_;  // for the thread alone
  std::vector<int> lost_;                        // ranks that are reported, for the thread alone
  std::mutex mutex_;
  std::vector<HeartbeatPeer> added_;  // guarded by mutex_
  bool stopping_ = false;             // guarded by mutex_
  Descriptor wake_;                   // an eventfd
  std::thread thread_;                // last: it uses all of the above
};

}  // namespace runahead
