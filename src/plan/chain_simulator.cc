#include "plan/chain_simulator.h"

#include <algorithm>
#include <vector>

#include "plan/phase_work.h"

namespace runahead {
namespace {

/// The link from one rank to the next: a port or card that rows leave through, and one that they enter by.
struct Passage {
  double left_free_s = 0;
  double entered_free_s = 0;
  size_t bytes = 0;
};

}  // namespace

bool EachLinkAlone(const LinkTable& links) {
  std::vector<size_t> taken;
  for (int rank = 0; rank + 1 < links.ranks(); ++rank) {
    if (links.Between(rank, rank + 1).mover != Mover::kEngine) return false;
    const auto [first, second] = links.ResourcesOf(rank, rank + 1);
    taken.push_back(first);
    if (second != first) taken.push_back(second);
  }
  std::sort(taken.begin(), taken.end());
  return std::adjacent_find(taken.begin(), taken.end()) == taken.end();
}

Simulation SimulateChain(const WorkShape& shape, const ClusterCosts& costs, const Partition& partition) {
  const PhaseWork work(shape, costs, Scheme::kRunaheadChain, partition);
  Simulation result;
  // Arrivals of the layers at this rank, and then at the next one, s.
  std::vector<double> arrival(static_cast<size_t>(shape.layers), 0.0);
  for (int rank = 0; rank < partition.ranks(); ++rank) {
    const bool sends = rank + 1 < partition.ranks();
    const LinkCost* const link = sends ? &costs.links.Between(rank, rank + 1) : nullptr;
    const auto [first, second] = sends ? costs.links.ResourcesOf(rank, rank + 1) : std::array<size_t, 2>{};
    Passage passage;
    double time = costs.start_s;
    double compute_s = 0;
    for (int layer = -1; layer < shape.layers; ++layer) {
      if (layer >= 0) {
        double& arrived = arrival[static_cast<size_t>(layer)];
        if (arrived > time) {
          ++result.events;
          time = arrived;
        }
        const size_t bytes = sends ? work.Bytes(rank, rank + 1, layer) : 0;
        arrived = 0;
        if (bytes > 0) {
          const double seconds = link->Seconds(bytes);
          passage.left_free_s = std::max(time, passage.left_free_s) + seconds;
          arrived = passage.left_free_s;
          if (second != first) {
            passage.entered_free_s = std::max(passage.left_free_s - seconds, passage.entered_free_s) + seconds;
            arrived = passage.entered_free_s;
          }
          arrived += link->latency_s;
          passage.bytes += bytes;
          ++result.events;
        }
      }
      const double seconds = work.Seconds(rank, layer);
      if (seconds > 0) {
        ++result.events;
        compute_s += seconds;
        time += seconds;
      }
    }
    result.compute_s.push_back(compute_s);
    result.busiest_bytes = std::max(result.busiest_bytes, passage.bytes);
    result.ttft_s = std::max(result.ttft_s, time + costs.end_s);
  }
  return result;
}

}  // namespace runahead
