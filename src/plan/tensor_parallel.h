// Tensor parallelism, which plans compare with and the engine does not have.
#pragma once

#include "plan/simulator.h"

namespace runahead {

/// Every layer: all ranks compute their share of it, then add up the activations twice over a ring. `partition` gives
/// the ranks and the tokens.
Simulation SimulateTensorParallel(const WorkShape& shape, const ClusterCosts& costs, const Partition& partition,
                                  KeepTimeline keep);

}  // namespace runahead
