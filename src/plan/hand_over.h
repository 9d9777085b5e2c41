// Which rows of the KV-cache travel between ranks in KV-Runahead. The exchanges move what this says, the planner
// counts it.
#pragma once

#include <cstdint>

#include "plan/partition.h"
#include "runahead/options.h"

namespace runahead {

/// Rows [begin, end) of a layer.
struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;

  [[nodiscard]] bool empty() const { return begin >= end; }
  [[nodiscard]] int64_t rows() const { return empty() ? 0 : end - begin; }
  friend bool operator==(const RowRange&, const RowRange&) = default;
};

/// What the hand-over needs to know of a layer.
struct LayerReach {
  int64_t window = 0;  // positions a query sees, its own included; 0: all
  bool last = false;   // the model's last layer, where only the last rank's last row attends
};

/// The rows that rank `from` sends to rank `to` in a layer: of those it has, the ones that a query of `to`, or of a
/// rank behind it in a chain, can still see. Empty when nothing travels between the two.
RowRange HandedOver(const Partition& partition, Topology topology, int from, int to, const LayerReach& layer);

/// The rows before the partition's origin that its last rank, which has all of them, sends to rank `to` in a layer:
/// those that a query of `to` sees and that `to`, which has the first `held`, has not.
RowRange PrefixHandedOver(const Partition& partition, int64_t held, int to, const LayerReach& layer);

}  // namespace runahead
