#include "plan/tensor_parallel.h"

#include <algorithm>

#include "base/units.h"

namespace runahead {

Simulation SimulateTensorParallel(const WorkShape& shape, const ClusterCosts& costs, const Partition& partition,
                                  KeepTimeline keep) {
  const int ranks = partition.ranks();
  const int64_t tokens = partition.tokens();
  const auto share = static_cast<size_t>(tokens) * static_cast<size_t>(shape.hidden) * shape.element_bytes /
                     static_cast<size_t>(ranks);
  double step_s = 0;  // duration of a step of the ring, in which each rank passes a share on
  for (int rank = 0; ranks > 1 && rank < ranks; ++rank) {
    const LinkCost& link = costs.links.Between(rank, (rank + 1) % ranks);
    step_s = std::max(step_s, link.Seconds(share) + link.latency_s);
  }
  const int steps = 2 * (ranks - 1);
  const double all_reduces_s = 2 * steps * step_s;
  const size_t bytes = 2 * static_cast<size_t>(steps) * share;  // bytes of each rank in each layer
  Simulation result;
  result.compute_s.assign(static_cast<size_t>(ranks), 0.0);
  result.ttft_s = costs.start_s;
  for (int layer = 0; layer < shape.layers; ++layer) {
    double slowest = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const DeviceCost& device = costs.devices[static_cast<size_t>(rank)];
      const RowCost cost = device.At(tokens);
      double seconds = cost.layer_s + cost.pair_s * static_cast<double>(CausalPairs(0, tokens, shape.window(layer)));
      if (layer + 1 == shape.layers) {  // one row behind the keys and values, and the head
        const double pairs = static_cast<double>(CausalPairs(tokens - 1, tokens, shape.window(layer)));
        seconds = cost.before_s + device.finish_s + device.finish_pair_s * pairs;
      }
      seconds /= ranks;
      slowest = std::max(slowest, seconds);
      result.compute_s[static_cast<size_t>(rank)] += seconds;
      ++result.events;
      if (keep == KeepTimeline::kNo) continue;
      result.timeline.push_back({rank, layer, Activity::kCompute, result.ttft_s * kMsPerSecond,
                                 (result.ttft_s + seconds) * kMsPerSecond, 0});
    }
    const double reduce_begin = result.ttft_s + slowest;
    result.ttft_s = reduce_begin + all_reduces_s;
    result.busiest_bytes += bytes;
    for (int rank = 0; ranks > 1 && rank < ranks; ++rank) {
      ++result.events;
      if (keep == KeepTimeline::kNo) continue;
      const int next = (rank + 1) % ranks;
      result.timeline.push_back(
          {rank, layer, Activity::kSend, reduce_begin * kMsPerSecond, result.ttft_s * kMsPerSecond, bytes, next});
      result.timeline.push_back(
          {next, layer, Activity::kReceive, reduce_begin * kMsPerSecond, result.ttft_s * kMsPerSecond, bytes, rank});
    }
  }
  result.ttft_s += costs.end_s;
  return result;
}

}  // namespace runahead
