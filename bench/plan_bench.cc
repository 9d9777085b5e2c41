// How many events of a prompt phase the simulator plays in a second. Each case is checked before it is timed: its
// transfers must be those that the counters say.
#include <benchmark/benchmark.h>

#include "base/check.h"
#include "plan/cluster_costs.h"
#include "plan/counters.h"
#include "plan/simulator.h"

namespace runahead {
namespace {

/// Llama 70B's sizes.
WorkShape LargeShape() {
  WorkShape shape;
  shape.layers = 80;
  shape.hidden = 8192;
  shape.q_heads = 64;
  shape.kv_heads = 8;
  shape.head_dim = 128;
  shape.ffn = 28672;
  shape.vocab = 32000;
  return shape;
}

ClusterCosts EqualRanks(const WorkShape& shape, int ranks) {
  ClusterCosts costs;
  costs.devices.assign(static_cast<size_t>(ranks), CostFromRates(shape, {"gpu", 7e14, 6e14, 4e12, 3e-5}));
  costs.links = LinkTable(ranks, {1e-5, 3.6e11, 2e-5, Mover::kEngine}, Sharing::kPorts);
  return costs;
}

void PlaysPhases(benchmark::State& state, Scheme scheme) {
  const auto ranks = static_cast<int>(state.range(0));
  const WorkShape shape = LargeShape();
  const ClusterCosts costs = EqualRanks(shape, ranks);
  const Partition partition = EvenPartition(int64_t{256} * ranks, ranks);
  const Simulation checked = Simulate(shape, costs, scheme, partition, KeepTimeline::kYes);
  size_t sent = 0;
  size_t expected = 0;
  for (const TimelineEvent& event : checked.timeline) sent += event.activity == Activity::kSend ? event.bytes : 0;
  for (const RankCounters& rank : CountWork(shape, scheme, partition)) expected += rank.sent_bytes;
  CHECK_EQ(sent, expected);
  int64_t events = 0;
  for (auto _ : state) events += Simulate(shape, costs, scheme, partition).events;
  state.SetItemsProcessed(events);
}

BENCHMARK_CAPTURE(PlaysPhases, chain, Scheme::kRunaheadChain)
    ->Arg(2)
    ->Arg(8)
    ->Arg(1024)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(PlaysPhases, direct, Scheme::kRunaheadDirect)->Arg(8)->Arg(64)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(PlaysPhases, tsp, Scheme::kTspCausal)->Arg(8)->Arg(64)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace runahead

BENCHMARK_MAIN();
