// Plays a chain whose links share nothing, rank after rank instead of event after event.
#pragma once

#include "plan/cluster_costs.h"
#include "plan/partition.h"
#include "plan/simulator.h"
#include "plan/work_shape.h"

namespace runahead {

/// Whether the links from each rank to the next are moved by engines and none waits for another: a rank's times then
/// follow from those of the rank before it alone.
bool EachLinkAlone(const LinkTable& links);

/// What Simulate gives for Scheme::kRunaheadChain, to the last bit; needs EachLinkAlone. Takes time for
/// ranks x layers and memory for the ranks and the layers.
Simulation SimulateChain(const WorkShape& shape, const ClusterCosts& costs, const Partition& partition);

}  // namespace runahead
