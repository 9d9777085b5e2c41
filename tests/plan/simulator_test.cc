// The simulator against plain recursions over layers and ranks, and against what must hold for any phase.
#include "plan/simulator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>

#include "tests/plan/random_cases.h"

namespace runahead {
namespace {

/// Seconds of compute before the exchange of `layer`, as the costs say.
double Before(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme, const Partition& partition, int rank,
              int layer) {
  const RowCost cost = costs.devices[static_cast<size_t>(rank)].At(partition.rows(rank));
  const double query = 2.0 * static_cast<double>(shape.hidden * shape.q_features());
  const double skipped =
      layer == shape.layers - 1 ? std::min(cost.layer_s, cost.before_s * query / (query + shape.KeyValueFlops())) : 0;
  if (layer == 0) return cost.before_s - skipped;
  const auto seen =
      static_cast<double>(CausalPairs(partition.begin(rank), partition.end(rank), shape.window(layer - 1)));
  const double masked = static_cast<double>(partition.rows(rank) * partition.tokens()) - seen;
  const double mask = scheme == Scheme::kTspDense ? costs.devices[static_cast<size_t>(rank)].masked_pair : 0;
  return cost.layer_s - skipped + cost.pair_s * (seen + mask * masked);
}

double Finish(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme, const Partition& partition) {
  const int64_t tokens = partition.tokens();
  const DeviceCost& last = costs.devices.back();
  const auto seen = static_cast<double>(CausalPairs(tokens - 1, tokens, shape.window(shape.layers - 1)));
  const double mask = scheme == Scheme::kTspDense ? last.masked_pair : 0;
  return last.finish_s + last.finish_pair_s * (seen + mask * (static_cast<double>(tokens) - seen));
}

double Bytes(const WorkShape& shape, Scheme scheme, const Partition& partition, int layer, int from, int to) {
  return static_cast<double>(HandOver(shape, scheme, partition, layer, from, to).rows()) *
         static_cast<double>(shape.RowBytes());
}

/// TTFT when every pair has its own copy engine: within a layer, the moment each rank's rows are written follows from
/// the layer before, and the chain goes from rank to rank.
double ReferenceWithEngines(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme,
                            const Partition& partition) {
  const int ranks = partition.ranks();
  std::vector<double> goes_on(static_cast<size_t>(ranks), costs.start_s);
  std::map<std::pair<int, int>, double> link_free;
  for (int layer = 0; layer < shape.layers; ++layer) {
    std::vector<double> ready;
    for (int rank = 0; rank < ranks; ++rank) {
      ready.push_back(goes_on[static_cast<size_t>(rank)] + Before(shape, costs, scheme, partition, rank, layer));
    }
    for (int rank = 0; rank < ranks; ++rank) {
      double& resumes = goes_on[static_cast<size_t>(rank)];
      resumes = ready[static_cast<size_t>(rank)];
      for (int from = 0; from < ranks; ++from) {
        const double bytes = Bytes(shape, scheme, partition, layer, from, rank);
        if (bytes == 0) continue;
        // The chain passes on what arrived; the others send their own rows at once.
        const double written =
            scheme == Scheme::kRunaheadChain ? goes_on[static_cast<size_t>(from)] : ready[static_cast<size_t>(from)];
        const LinkCost& link = costs.links.Between(from, rank);
        double& free = link_free[{from, rank}];
        free = std::max(free, written) + link.setup_s + bytes / link.bytes_per_s;
        resumes = std::max(resumes, free + link.latency_s);
      }
    }
  }
  goes_on.back() += Finish(shape, costs, scheme, partition);
  return *std::max_element(goes_on.begin(), goes_on.end()) + costs.end_s;
}

/// TTFT of two ranks whose threads copy: whoever posts last does.
double ReferenceOfTwoThreads(const WorkShape& shape, const ClusterCosts& costs, const Partition& partition) {
  const Scheme scheme = Scheme::kRunaheadChain;
  const LinkCost& link = costs.links.Between(0, 1);
  double first = costs.start_s;   // rank 0, which never waits
  double second = costs.start_s;  // rank 1
  double receive_posted = costs.start_s;
  double next_arrived = -1;  // arrival of the coming layer, when rank 1 copies it itself, s
  const auto copy_s = [&](int layer) {
    return link.setup_s + Bytes(shape, scheme, partition, layer, 0, 1) / link.bytes_per_s;
  };
  first += Before(shape, costs, scheme, partition, 0, 0);
  for (int layer = 0; layer < shape.layers; ++layer) {
    const bool moves = Bytes(shape, scheme, partition, layer, 0, 1) > 0;
    double arrived = moves ? next_arrived : 0;
    if (moves && next_arrived < 0) {  // rank 0 comes second
      first += copy_s(layer);
      arrived = first + link.latency_s;
    }
    first += layer + 1 < shape.layers ? Before(shape, costs, scheme, partition, 0, layer + 1) : 0;
    second += Before(shape, costs, scheme, partition, 1, layer);
    receive_posted = second;
    next_arrived = -1;
    if (layer + 1 < shape.layers && first < receive_posted && Bytes(shape, scheme, partition, layer + 1, 0, 1) > 0) {
      second += copy_s(layer + 1);
      next_arrived = second;
    }
    second = std::max(second, arrived);
  }
  return std::max(first, second + Finish(shape, costs, scheme, partition)) + costs.end_s;
}

TEST(Simulator, EqualsARecursionWhenEnginesMoveTheRows) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const int ranks = 1 + static_cast<int>(random() % 6);
    const WorkShape shape = RandomShape(random);
    const Partition partition = RandomPartition(random, ranks);
    const ClusterCosts costs = RandomCosts(random, ranks, Mover::kEngine);
    for (const Scheme scheme :
         {Scheme::kRunaheadChain, Scheme::kRunaheadDirect, Scheme::kTspDense, Scheme::kTspCausal}) {
      const double expected = ReferenceWithEngines(shape, costs, scheme, partition);
      EXPECT_NEAR(Simulate(shape, costs, scheme, partition).ttft_s, expected, 1e-9 * expected) << Name(scheme);
    }
  }
}

TEST(Simulator, EqualsARecursionWhenTwoThreadsCopy) {
  std::mt19937 random(4);
  for (int round = 0; round < 300; ++round) {
    const WorkShape shape = RandomShape(random);
    const Partition partition = RandomPartition(random, 2);
    const ClusterCosts costs = RandomCosts(random, 2, Mover::kThread);
    const double expected = ReferenceOfTwoThreads(shape, costs, partition);
    EXPECT_NEAR(Simulate(shape, costs, Scheme::kRunaheadChain, partition).ttft_s, expected, 1e-9 * expected);
    EXPECT_NEAR(Simulate(shape, costs, Scheme::kRunaheadDirect, partition).ttft_s, expected, 1e-9 * expected);
  }
}

// What a rank computes and what a link carries is the counters' business, whoever moves it.
TEST(Simulator, MovesWhatTheCountersSay) {
  std::mt19937 random(5);
  for (int round = 0; round < 100; ++round) {
    const int ranks = 2 + static_cast<int>(random() % 4);
    const WorkShape shape = RandomShape(random);
    const Partition partition = RandomPartition(random, ranks);
    for (const Mover mover : {Mover::kEngine, Mover::kThread}) {
      const ClusterCosts costs = RandomCosts(random, ranks, mover);
      for (const Scheme scheme :
           {Scheme::kRunaheadChain, Scheme::kRunaheadDirect, Scheme::kTspDense, Scheme::kTspCausal}) {
        const Simulation simulation = Simulate(shape, costs, scheme, partition, KeepTimeline::kYes);
        const std::vector<RankCounters> counters = CountWork(shape, scheme, partition);
        std::vector<size_t> sent(static_cast<size_t>(ranks));
        std::vector<size_t> received(static_cast<size_t>(ranks));
        for (const TimelineEvent& event : simulation.timeline) {
          const auto rank = static_cast<size_t>(event.rank);
          EXPECT_LE(event.begin_ms, event.end_ms);
          EXPECT_LE(event.end_ms, simulation.ttft_s * 1000 * (1 + 1e-12));
          if (event.activity == Activity::kSend) sent[rank] += event.bytes;
          if (event.activity == Activity::kReceive) received[rank] += event.bytes;
        }
        for (size_t rank = 0; rank < counters.size(); ++rank) {
          EXPECT_EQ(sent[rank], counters[rank].sent_bytes);
          EXPECT_EQ(received[rank], counters[rank].received_bytes);
        }
      }
    }
  }
}

// One transfer at a time: nothing that passes the same link, port or bus overlaps.
TEST(Simulator, SharesPortsAndBuses) {
  std::mt19937 random(6);
  for (int round = 0; round < 50; ++round) {
    const int ranks = 3 + static_cast<int>(random() % 3);
    const WorkShape shape = RandomShape(random);
    const Partition partition = RandomPartition(random, ranks);
    ClusterCosts costs = RandomCosts(random, ranks, Mover::kEngine);
    double looser = 0;
    for (const Sharing sharing : {Sharing::kPairs, Sharing::kPorts, Sharing::kBus}) {
      costs.links = LinkTable(ranks, {0.1, 50, 0.1, Mover::kEngine}, sharing);
      const Simulation simulation = Simulate(shape, costs, Scheme::kTspCausal, partition, KeepTimeline::kYes);
      std::map<size_t, std::vector<std::pair<double, double>>> taken;
      for (const TimelineEvent& event : simulation.timeline) {
        const bool sends = event.activity == Activity::kSend;
        if (!sends && event.activity != Activity::kReceive) continue;
        const auto [first, second] =
            sends ? costs.links.ResourcesOf(event.rank, event.peer) : costs.links.ResourcesOf(event.peer, event.rank);
        if (sends || second != first) taken[sends ? first : second].emplace_back(event.begin_ms, event.end_ms);
      }
      for (auto& [resource, stretches] : taken) {
        std::sort(stretches.begin(), stretches.end());
        for (size_t i = 1; i < stretches.size(); ++i) {
          EXPECT_GE(stretches[i].first, stretches[i - 1].second * (1 - 1e-9) - 1e-9);
        }
      }
      EXPECT_GE(simulation.ttft_s, looser * (1 - 1e-12));
      looser = simulation.ttft_s;
    }
  }
}

/// Some ranks on hosts of their own, some together, in any order.
std::vector<int> RandomHosts(std::mt19937& random, int ranks) {
  std::vector<int> hosts;
  int known = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    const int host = random() % 3 == 0 ? static_cast<int>(random()) % std::max(1, known) : known;
    hosts.push_back(known == 0 ? 0 : std::abs(host));
    known = std::max(known, hosts.back() + 1);
  }
  return hosts;
}

// A timeline needs each transfer by itself; without one, runs of transfers and whole chains are played at once.
TEST(Simulator, PlaysTheSameWithAndWithoutATimeline) {
  std::mt19937 random(8);
  for (int round = 0; round < 400; ++round) {
    const int ranks = 2 + static_cast<int>(random() % 12);
    const WorkShape shape = RandomShape(random);
    const Partition partition = RandomPartition(random, ranks);
    ClusterCosts costs = RandomCosts(random, ranks, Mover::kEngine);
    if (round % 4 != 0) {
      const auto sharing = static_cast<Sharing>(random() % 3);
      costs.links = LinkTable(ranks, {0.1, 50, 0.1, Mover::kEngine}, sharing);
      for (int i = static_cast<int>(random() % 5); i > 0; --i) {
        const auto from = static_cast<int>(random() % static_cast<uint32_t>(ranks));
        costs.links.Set(from, (from + 1) % ranks, {0.2, 10, 0.3, Mover::kEngine});
      }
    }
    if (round % 2 == 1) costs.links.SetHosts(RandomHosts(random, ranks));
    for (const Scheme scheme :
         {Scheme::kRunaheadChain, Scheme::kRunaheadDirect, Scheme::kTspDense, Scheme::kTspCausal}) {
      const Simulation one_by_one = Simulate(shape, costs, scheme, partition, KeepTimeline::kYes);
      const Simulation at_once = Simulate(shape, costs, scheme, partition, KeepTimeline::kNo);
      EXPECT_EQ(at_once.ttft_s, one_by_one.ttft_s) << round << " " << Name(scheme);
      EXPECT_EQ(at_once.compute_s, one_by_one.compute_s);
      EXPECT_EQ(at_once.busiest_bytes, one_by_one.busiest_bytes) << round << " " << Name(scheme);
      EXPECT_EQ(at_once.events, one_by_one.events);
    }
  }
}

TEST(Simulator, OnOneRankAddsUpTheStretches) {
  std::mt19937 random(7);
  const WorkShape shape = RandomShape(random);
  const ClusterCosts costs = RandomCosts(random, 1, Mover::kThread);
  const Partition whole = EvenPartition(123, 1);
  double expected = costs.start_s + costs.end_s + Finish(shape, costs, Scheme::kSingle, whole);
  for (int layer = 0; layer < shape.layers; ++layer) {
    expected += Before(shape, costs, Scheme::kSingle, whole, 0, layer);
  }
  EXPECT_NEAR(Simulate(shape, costs, Scheme::kSingle, whole).ttft_s, expected, 1e-9 * expected);
}

// Far more ranks than anyone has: equal ranks that only compute finish an even, attention-free phase at the same
// time.
TEST(Simulator, TakesAThousandRanksOfEightyLayers) {
  constexpr int kRanks = 1024;
  WorkShape shape = SmallShape();
  shape.layers = 80;
  ClusterCosts costs;
  DeviceCost device;
  device.knots = {{1, 1, 1, 0}};  // a second a row
  costs.devices.assign(kRanks, device);
  costs.links = LinkTable(kRanks, {0, 1e30, 0, Mover::kEngine}, Sharing::kPorts);
  const Partition even = EvenPartition(kRanks * 4, kRanks);
  const Simulation simulation = Simulate(shape, costs, Scheme::kRunaheadChain, even);
  const double skipped =
      4 * static_cast<double>(shape.q_features()) / static_cast<double>(shape.q_features() + 2 * shape.kv_features());
  EXPECT_NEAR(simulation.ttft_s, 80 * 4 - skipped, 1e-6);
  EXPECT_GE(simulation.events, int64_t{kRanks} * 80);
  EXPECT_EQ(Simulate(shape, costs, Scheme::kRunaheadChain, even).ttft_s, simulation.ttft_s);
}

TEST(Simulator, TensorParallelIsAsSlowAsItsSlowestRankAndItsRing) {
  const WorkShape shape = SmallShape();
  ClusterCosts costs;
  DeviceCost device;
  device.knots = {{1, 1, 2, 0}};
  costs.devices = {device, device.Slowed(3)};
  costs.links = LinkTable(2, {0, 1, 0, Mover::kEngine});
  const double compute = 3 * (2 * 2 * 10 + 10) / 2.0;  // two layers and the last one's first half, 10 rows, shared
  const double share = 10.0 * 8 * 2 / 2;               // bytes of half the activations, at a byte a second
  const Simulation simulation = Simulate(shape, costs, Scheme::kTensorParallel, EvenPartition(10, 2));
  EXPECT_NEAR(simulation.ttft_s, compute + 3 * 2 * 2 * share, 1e-9);
  EXPECT_EQ(simulation.busiest_bytes, CountWork(shape, Scheme::kTensorParallel, EvenPartition(10, 2))[0].sent_bytes);
}

}  // namespace
}  // namespace runahead
