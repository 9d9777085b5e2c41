#include "engine/assumed_costs.h"

namespace runahead {

ClusterCosts AssumedCpuCosts(const WorkShape& shape, std::span<const CpuRankShare> ranks) {
  constexpr double kFlopsOfThread = 1.5e11;
  // Matmul FLOP/s over attention FLOP/s on CPUs, as `runahead bench` measures both; partitions are not sensitive to
  // it.
  constexpr double kAttentionSlowdown = 3;
  constexpr double kIntegerSpeed = 2;  // of products in int8 over those in bf16
  constexpr double kMemoryBytes = 1e10;
  constexpr LinkCost kCopies{3e-5, 5e9, 2e-6, Mover::kThread};
  ClusterCosts costs;
  costs.links = LinkTable(static_cast<int>(ranks.size()), kCopies);
  costs.tile_rows = 32;  // rows that AMX multiplies at once; other processors cut any number evenly
  for (const CpuRankShare& rank : ranks) {
    const double flops = kFlopsOfThread * rank.threads;
    const double products = shape.weight_format.empty() ? flops : kIntegerSpeed * flops;
    const DeviceRates rates{"cpu", products, flops / kAttentionSlowdown, kMemoryBytes, 0};
    costs.devices.push_back(CostFromRates(shape, rates).Slowed(rank.slowdown));
  }
  return costs;
}

ClusterCosts AssumedGpuCosts(const WorkShape& shape, int ranks) {
  constexpr double kFlops = 7e14;
  constexpr double kFp8Speed = 1.7;  // of products in fp8, with what makes their activations, over those in bf16
  const double products = shape.weight_format.empty() ? kFlops : kFp8Speed * kFlops;
  const DeviceRates rates{"gpu", products, 6e14, 3e12, 5e-5};
  constexpr LinkCost kPeerCopies{1e-5, 3e11, 2e-5, Mover::kEngine};
  ClusterCosts costs;
  costs.links = LinkTable(ranks, kPeerCopies);
  costs.tile_rows = 128;  // rows of the larger tiles of GPU matmuls
  costs.devices.assign(static_cast<size_t>(ranks), CostFromRates(shape, rates));
  return costs;
}

}  // namespace runahead
