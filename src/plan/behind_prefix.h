// What a prompt phase takes whose first tokens are in the caches already.
#pragma once

#include <cstdint>
#include <span>

#include "plan/cluster_costs.h"
#include "plan/partition.h"
#include "plan/scheme.h"
#include "plan/work_shape.h"

namespace runahead {

/// Time until the last rank of `costs`, which has all `rows` rows, has sent each other one what it lacks of them, s.
/// held: [ranks], the rows that each has.
double PrefixSeconds(const WorkShape& shape, const ClusterCosts& costs, int64_t rows, std::span<const int64_t> held);

/// TTFT of a round that takes `round_s` without a prefix to hand over and `prefix_s` for the hand-over, s: rows of
/// the prefix are there from the start and run ahead of the computation by many layers.
double SecondsWithPrefix(const WorkShape& shape, double round_s, double prefix_s);

/// TTFT of the chunks of `partition` behind its origin, simulated, s. held: [ranks], as above.
double SecondsBehindPrefix(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme,
                           const Partition& partition, std::span<const int64_t> held);

}  // namespace runahead
