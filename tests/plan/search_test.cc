// The searches against trying every partition, on random costs.
#include "plan/search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "plan/simulator.h"
#include "tests/plan/random_cases.h"

namespace runahead {
namespace {

/// The lowest cost of any partition of two or three ranks.
double LowestOfAll(int64_t tokens, int ranks, const Objective& objective) {
  double lowest = std::numeric_limits<double>::infinity();
  for (int64_t first = 1; first < tokens; ++first) {
    if (ranks == 2) {
      lowest = std::min(lowest, objective(Partition({0, first, tokens})));
      continue;
    }
    for (int64_t second = first + 1; second < tokens; ++second) {
      lowest = std::min(lowest, objective(Partition({0, first, second, tokens})));
    }
  }
  return lowest;
}

// A convex bowl around a point that is drawn, steeper along some directions than along others.
TEST(GridSearch, FindsTheBottomOfConvexCosts) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> draw(0, 1);
  for (int round = 0; round < 100; ++round) {
    const int ranks = 2 + static_cast<int>(random() % 2);
    const int64_t tokens = 60;
    const Partition bottom =
        FractionPartition(tokens, std::vector{0.1 + draw(random), 0.1 + draw(random), 0.1 + draw(random)});
    const double a = 0.5 + draw(random);
    const double b = 0.5 + draw(random);
    const Objective cost = [&](const Partition& partition) {
      const auto x = static_cast<double>(partition.end(0) - bottom.end(0));
      const auto y = ranks == 2 ? 0.0 : static_cast<double>(partition.end(1) - bottom.end(1));
      return a * x * x + b * y * y + 0.5 * x * y;
    };
    EXPECT_EQ(GridSearch(tokens, ranks, cost).cost, LowestOfAll(tokens, ranks, cost)) << round;
  }
}

TEST(GridSearch, StopsAtItsBudgetAndAtItsFinestStep) {
  int evaluations = 0;
  const Objective count = [&](const Partition& partition) {
    ++evaluations;
    return static_cast<double>(partition.rows(0));  // ever better to the left
  };
  GridSearchOptions options;
  options.most_evaluations = 5;
  EXPECT_EQ(GridSearch(1000, 2, count, options).evaluations, 5);
  EXPECT_EQ(evaluations, 5);
  options.most_evaluations = 1000;
  options.finest = 10;
  const Partition found = GridSearch(1000, 2, count, options).partition;
  EXPECT_LE(found.rows(0), 10);
}

TEST(GridSearch, SpendsFewEvaluationsAroundItsStart) {
  constexpr int64_t kTokens = 8192;
  for (const int64_t best : {4096, 4400, 4700, 5000}) {
    const Objective busiest = [&](const Partition& partition) {
      return static_cast<double>(std::max(partition.rows(0) * (kTokens - best), partition.rows(1) * best));
    };
    GridSearchOptions options;
    options.divisions = 16;
    options.coarse_grid = false;
    options.most_evaluations = 8;
    options.starts = {Partition({0, 4600, kTokens})};
    EXPECT_LE(GridSearch(kTokens, 2, busiest, options).cost, 1.02 * busiest(Partition({0, best, kTokens}))) << best;
  }
}

TEST(GridSearch, BettersAGoodStartOfSeveralRanks) {
  constexpr int64_t kTokens = 8192;
  for (const int ranks : {2, 3, 4, 8}) {
    const ChunkCost cost{1, 1e-4};
    const Objective busiest = [&](const Partition& partition) {
      double most = 0;
      for (int rank = 0; rank < ranks; ++rank)
        most = std::max(most, cost(partition.begin(rank), partition.end(rank)));
      return most;
    };
    const double best = busiest(BalancedPartition(kTokens, ranks, cost));
    const Partition start = BalancedPartition(kTokens, ranks, ChunkCost{1, 2e-4});
    GridSearchOptions options;
    options.divisions = 64;
    options.coarse_grid = false;
    options.finest = kTokens / 512;
    options.most_evaluations = 80;
    options.starts = {start};
    EXPECT_LT(GridSearch(kTokens, ranks, busiest, options).cost - best, 0.7 * (busiest(start) - best)) << ranks;
  }
}

TEST(GridSearch, KeepsATokenForEveryRankAndUsesFewerRanksForFewerTokens) {
  const Objective any = [](const Partition& partition) { return static_cast<double>(partition.rows(0)); };
  EXPECT_EQ(GridSearch(3, 5, any).partition.ranks(), 3);
  EXPECT_EQ(GridSearch(7, 1, any).partition.ToString(), "7");
}

/// 13 rounds of candidates that take `typical` seconds, and a share more or less by chance.
std::vector<std::vector<double>> Rounds(const std::vector<double>& typical, double share, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::vector<double>> seconds(typical.size());
  for (int round = 0; round < 13; ++round) {
    for (size_t i = 0; i < typical.size(); ++i) {
      seconds[i].push_back(typical[i] * std::uniform_real_distribution(1 - share, 1 + share)(random));
    }
  }
  return seconds;
}

TEST(SurelyFastest, TakesASmallGainThatIsSteadyAndALargeOneAnyway) {
  EXPECT_EQ(SurelyFastest(Rounds({1.0, 0.99, 0.98, 0.99}, 0, 0)), 2U);
  EXPECT_EQ(SurelyFastest(Rounds({1.0}, 0.1, 0)), 0U);
  for (uint32_t seed = 0; seed < 20; ++seed) EXPECT_EQ(SurelyFastest(Rounds({1.0, 1.0, 0.8}, 0.1, seed)), 2U);
}

TEST(SurelyFastest, KeepsTheFirstOfEqualCandidatesMostly) {
  int kept = 0;
  for (uint32_t seed = 0; seed < 100; ++seed) {
    kept += SurelyFastest(Rounds({1.0, 1.0, 1.0, 1.0, 1.0}, 0.1, seed)) == 0 ? 1 : 0;
  }
  EXPECT_GE(kept, 75);
}

// Two and three unequal ranks on unequal links, some of them slower than any computation, or with threads that copy.
TEST(SolvePartition, IsAsGoodAsTryingEverything) {
  std::mt19937 random(2);
  for (int round = 0; round < 40; ++round) {
    const int ranks = 2 + static_cast<int>(random() % 2);
    const int64_t tokens = 40;
    const WorkShape shape = RandomShape(random);
    ClusterCosts costs = RandomCosts(random, ranks, Mover::kEngine);
    if (round % 2 == 1) costs.links = LinkTable(ranks, {0.1, 1e5, 0.05, Mover::kThread});
    for (const Scheme scheme : {Scheme::kRunaheadChain, Scheme::kRunaheadDirect}) {
      const double lowest = LowestOfAll(tokens, ranks, [&](const Partition& partition) {
        return Simulate(shape, costs, scheme, partition).ttft_s;
      });
      EXPECT_LE(SolvePartition(shape, costs, scheme, tokens).cost, 1.03 * lowest) << round << " " << Name(scheme);
    }
  }
}

// A grid of cut points among so many ranks has more points than a machine could count.
TEST(SolvePartition, EndsForManyRanks) {
  WorkShape shape = SmallShape();
  shape.layers = 4;
  for (const int ranks : {24, 28, 32, 33, 64}) {
    ClusterCosts costs;
    costs.devices.assign(static_cast<size_t>(ranks), {"device", {{1, 1e-6, 1e-6, 1e-9}}, 1e-6, 0, 1});
    costs.links = LinkTable(ranks, {1e-6, 1e9, 0, Mover::kEngine});
    const Partition even = EvenPartition(4000, ranks);
    const Simulation simulation = Simulate(shape, costs, Scheme::kRunaheadChain, even);
    for (const int64_t simulations : {10, 300}) {
      const SearchResult found =
          SolvePartition(shape, costs, Scheme::kRunaheadChain, 4000, simulations * simulation.events);
      EXPECT_EQ(found.partition.ranks(), ranks);
      EXPECT_LE(found.cost, simulation.ttft_s);
    }
  }
}

// Costs that take unequal ranks for equal ones, corrected by runs on the true ones.
TEST(CostsAsMeasured, BalanceRanksThatNobodyKnewToDiffer) {
  WorkShape shape = SmallShape();
  shape.layers = 8;
  std::mt19937 random(4);
  std::uniform_real_distribution<double> slowdown(1, 3);
  const Scheme scheme = Scheme::kRunaheadDirect;
  constexpr int64_t kTokens = 4000;
  for (const int ranks : {2, 3, 4}) {
    ClusterCosts costs;
    const DeviceCost device{"device", {{1, 1e-6, 1e-6, 1e-9}, {4000, 4e-3, 4e-3, 1e-9}}, 1e-6, 0, 1};
    costs.devices.assign(static_cast<size_t>(ranks), device);
    costs.links = LinkTable(ranks, {1e-6, 1e9, 0, Mover::kEngine});
    ClusterCosts truth = costs;
    for (DeviceCost& slow : truth.devices) slow = slow.Slowed(slowdown(random));
    const double best_s = SolvePartition(shape, truth, scheme, kTokens).cost;
    Partition partition = SolvePartition(shape, costs, scheme, kTokens).partition;
    EXPECT_GT(Simulate(shape, truth, scheme, partition).ttft_s, 1.1 * best_s) << "nothing to correct";
    for (int round = 0; round < 2; ++round) {
      const std::vector<double> compute_s = Simulate(shape, truth, scheme, partition).compute_s;
      const ClusterCosts measured = CostsAsMeasured(shape, costs, scheme, partition, compute_s);
      partition = SolvePartition(shape, measured, scheme, kTokens).partition;
    }
    EXPECT_LT(Simulate(shape, truth, scheme, partition).ttft_s, 1.01 * best_s) << ranks << " ranks";
  }
}

TEST(BalancedCompute, MakesUnequalRanksFinishTogether) {
  WorkShape shape = SmallShape();
  shape.layers = 40;
  ClusterCosts costs;
  DeviceCost device;
  device.knots = {{1, 1e-6, 1e-6, 1e-9}};
  costs.devices = {device, device.Slowed(3), device.Slowed(1.5)};
  costs.links = LinkTable(3, {0, 1e12, 0, Mover::kEngine});
  const Partition partition = BalancedCompute(shape, costs, Scheme::kRunaheadDirect, 30000);
  std::vector<double> seconds;
  for (int rank = 0; rank < 3; ++rank) {
    const RowCost cost = costs.devices[static_cast<size_t>(rank)].At(partition.rows(rank));
    const auto pairs = static_cast<double>(CausalPairs(partition.begin(rank), partition.end(rank), 0));
    seconds.push_back(cost.before_s + 39 * (cost.layer_s + cost.pair_s * pairs));
  }
  const auto [least, most] = std::minmax_element(seconds.begin(), seconds.end());
  EXPECT_LE(*most, *least * 1.001);
}

}  // namespace
}  // namespace runahead
