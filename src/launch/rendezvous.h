// How the processes of a group find and check each other before they work together.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/deadline.h"
#include "launch/place.h"
#include "wire/channel.h"
#include "wire/heartbeat.h"

namespace runahead {

/// What a process says of itself.
struct Introduction {
  /// Names and values that must be the same everywhere: version, model, options. In the same order everywhere.
  std::vector<std::pair<std::string, std::string>> facts;
  std::string address;  // opaque bytes for the others: where its links are (UcxPort::address())
};

/// A process of the group, as all know it.
struct MemberProcess {
  int rank = 0;
  std::string host;
  std::string address;
};

/// A process that takes the place of one that was lost.
struct Joiner {
  MemberProcess member;
  std::unique_ptr<Channel> control;
  HeartbeatPeer heartbeat;
};

/// Rank 0's address, for those who come once the group has met.
class Door {
 public:
  virtual ~Door() = default;
  /// `rank` is lost: from now on another may come in its place. From any thread.
  virtual void Vacate(int rank) = 0;
  /// The next that took a vacant place, or nothing by the deadline. Strangers hold up nobody. For one thread.
  virtual std::optional<Joiner> Await(Deadline deadline) = 0;
};

/// The group, seen from one of its processes.
struct Meeting {
  std::vector<MemberProcess> members;  // [ranks]
  /// At rank 0: [ranks], null for itself. Elsewhere: one, to rank 0.
  std::vector<std::unique_ptr<Channel>> control;
  /// Connections for heartbeats: at rank 0 to all others, elsewhere to rank 0.
  std::vector<HeartbeatPeer> heartbeats;
  std::unique_ptr<Door> door;  // at rank 0: while it lives, its port is taken
};

/// Meets the group at rank 0's address, which all others connect to. Throws LinkError naming the ranks that did not
/// come before the deadline, ConfigError naming rank, field and both values where an introduction differs from rank
/// 0's; everybody who came learns the same. Whoever does not know the secret is turned away, and holds up nobody.
/// An empty secret lets processes of this host alone meet.
Meeting Meet(const Place& place, const Introduction& own, std::string_view secret, Deadline deadline);

/// This host's name.
std::string HostName();

}  // namespace runahead
