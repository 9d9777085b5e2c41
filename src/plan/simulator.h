// Plays a prompt phase through, layer by layer, on costs instead of devices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "plan/cluster_costs.h"
#include "plan/counters.h"
#include "plan/partition.h"
#include "plan/scheme.h"
#include "plan/work_shape.h"
#include "runahead/timeline.h"

namespace runahead {

struct Simulation {
  double ttft_s = 0;
  std::vector<double> compute_s;        // compute time of each rank, s
  size_t busiest_bytes = 0;             // bytes of the link, port, bus or network card that carries most
  int64_t events = 0;                   // stretches of compute, waits and transfers
  std::vector<TimelineEvent> timeline;  // empty unless asked for
};

enum class KeepTimeline : bool { kNo, kYes };

/// The prompt phase of `partition` on the ranks of `costs`, which are as many. Each rank computes up to the exchange
/// of a layer, posts the layer's receives and sends in the order of src/prefill/exchanges.cc, waits for its rows and
/// goes on. A transfer by an engine starts when its rows are written and the link is free, first come, first
/// served (where it leaves through one port and arrives through another, each of them in turn); one by a thread is
/// made by whichever side posts last, and takes its time. Deterministic: equal times are ordered by rank. Takes a
/// fraction of a microsecond per event and memory for ranks x layers (x ranks where every pair has a link).
Simulation Simulate(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme, const Partition& partition,
                    KeepTimeline keep = KeepTimeline::kNo);

}  // namespace runahead
