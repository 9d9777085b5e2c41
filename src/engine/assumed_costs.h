// What CPU ranks cost when nobody measured them: the analytic model.
#pragma once

#include <span>

#include "plan/cluster_costs.h"

namespace runahead {

/// One CPU rank's share of the machine.
struct CpuRankShare {
  int threads = 1;
  double slowdown = 1;  // EngineOptions::slowdown_of_rank
};

/// Linear (matmuls) and quadratic (attention) costs from the model's sizes, and copies by the ranks' threads, at
/// rates that a processor with wide vectors reaches. Their ratios, which partitions follow from, hold on others too;
/// their sums are nobody's.
ClusterCosts AssumedCpuCosts(const WorkShape& shape, std::span<const CpuRankShare> ranks);

}  // namespace runahead
