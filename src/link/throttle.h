// Links that carry no more than so many bytes per second, for experiments with slow and uneven links.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "link/link.h"

namespace runahead {

/// Rates of links, bytes per second; 0: not limited.
struct LinkRates {
  std::vector<double> of_link;  // [from][to], each link by itself; empty: none is limited
  /// [ranks], the rate of a rank's network card: all that leaves it shares this much, and so does all that enters it.
  /// Empty: none is limited.
  std::vector<double> of_rank;

  [[nodiscard]] bool any() const;
  /// Rate of a transfer between two of `ranks` ranks: the lowest of its link and its two ranks. 0: not limited.
  [[nodiscard]] double Between(int from, int to, int ranks) const;
};

/// Says when transfers over limited links begin and end. A link carries one transfer at a time, and so does each
/// direction of a rank's card, first come, first served. A transfer passes the sender's card first, then the
/// receiver's as soon as that is free, as in the simulator (Sharing::kPorts). Fabrics that share links share one.
/// Thread-safe.
class Throttle {
 public:
  /// Non-empty lists of `rates` have an entry for each of `ranks` ranks, or for each pair of them.
  Throttle(int ranks, LinkRates rates);
  /// Null where `rates` limit nothing.
  static std::shared_ptr<Throttle> MakeFor(int ranks, const LinkRates& rates);

  [[nodiscard]] bool Limits(int from, int to) const { return rates_.Between(from, to, ranks_) > 0; }

  /// Books a transfer of `bytes` that can begin at `ready`. Calls for one link come in the order of its transfers.
  MovedAt Book(int from, int to, size_t bytes, Clock::time_point ready);

 private:
  using Port = Clock::time_point;  // the time at which the port is free

  int ranks_;
  LinkRates rates_;
  std::mutex mutex_;
  std::vector<Port> links_;    // [from][to], guarded by mutex_
  std::vector<Port> leaving_;  // [ranks], guarded by mutex_
  std::vector<Port> coming_;   // [ranks], guarded by mutex_
};

}  // namespace runahead
