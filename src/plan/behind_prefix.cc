#include "plan/behind_prefix.h"

#include <algorithm>

#include "base/check.h"
#include "plan/simulator.h"

namespace runahead {

double PrefixSeconds(const WorkShape& shape, const ClusterCosts& costs, int64_t rows, std::span<const int64_t> held) {
  CHECK_EQ(std::ssize(held), costs.ranks());
  const int last = costs.ranks() - 1;
  double seconds = 0;
  for (int to = 0; to < last; ++to) {
    const int64_t missing = rows - held[static_cast<size_t>(to)];
    if (missing <= 0) continue;
    const auto bytes = static_cast<size_t>(missing) * shape.RowBytes();
    seconds += shape.layers * costs.links.Between(last, to).Seconds(bytes);
  }
  return seconds;
}

double SecondsWithPrefix(const WorkShape& shape, double round_s, double prefix_s) {
  return std::max(round_s, prefix_s + round_s / shape.layers);
}

double SecondsBehindPrefix(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme,
                           const Partition& partition, std::span<const int64_t> held) {
  return SecondsWithPrefix(shape, Simulate(shape, costs, scheme, partition).ttft_s,
                           PrefixSeconds(shape, costs, partition.origin(), held));
}

}  // namespace runahead
