#include "plan/hand_over.h"

#include <algorithm>

#include "base/check.h"

namespace runahead {
namespace {

/// The first row that the queries from position `position` on see.
int64_t FirstSeen(int64_t position, int64_t window) {
  return window == 0 ? 0 : std::max<int64_t>(0, position - window + 1);
}

}  // namespace

RowRange HandedOver(const Partition& partition, Topology topology, int from, int to, const LayerReach& layer) {
  const int last_rank = partition.ranks() - 1;
  CHECK(0 <= from && from <= last_rank && 0 <= to && to <= last_rank);
  const int64_t first_query = layer.last ? partition.tokens() - 1 : partition.begin(to);
  const int64_t first = FirstSeen(first_query, layer.window);
  switch (topology) {
    case Topology::kChain:
      if (to != from + 1) return {};
      return {std::clamp(first, partition.origin(), partition.end(from)), partition.end(from)};
    case Topology::kDirect:
      if (to <= from || (layer.last && to != last_rank)) return {};
      return {std::clamp(first, partition.begin(from), partition.end(from)), partition.end(from)};
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown topology");
}

RowRange PrefixHandedOver(const Partition& partition, int64_t held, int to, const LayerReach& layer) {
  if (layer.last || to == partition.ranks() - 1) return {};
  return {std::max(held, FirstSeen(partition.begin(to), layer.window)), partition.origin()};
}

}  // namespace runahead
