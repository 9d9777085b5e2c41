// KVR-P: what a table of searched partitions says of the lengths between and beyond its own.
#include "plan/partition_table.h"

#include <gtest/gtest.h>

#include <vector>

#include "plan/cluster.h"
#include "plan/simulator.h"
#include "tests/plan/random_cases.h"

namespace runahead {
namespace {

TEST(PartitionTable, InterpolatesFractionsAndExtrapolatesWithCare) {
  PartitionTable table;
  table.Put({Scheme::kRunaheadChain, Partition({0, 500, 1000}), 1});
  table.Put({Scheme::kRunaheadChain, Partition({0, 2800, 4000}), 8});
  // The planner's first chunk grows with the prompt.
  const auto solve = [](Scheme /*scheme*/, int /*ranks*/, int64_t tokens) -> SearchResult {
    const double first = 0.5 + static_cast<double>(tokens) / 1e5;
    return {FractionPartition(tokens, std::vector{first, 1 - first}), static_cast<double>(tokens * tokens), 1};
  };
  const auto predict = [&](int64_t tokens) { return table.Predict(Scheme::kRunaheadChain, 2, tokens, solve); };
  const auto fraction = [&](int64_t tokens) {
    const auto entry = predict(tokens);
    return entry ? static_cast<double>(entry->partition.rows(0)) / static_cast<double>(tokens) : -1.0;
  };
  EXPECT_DOUBLE_EQ(fraction(1000), 0.5);
  EXPECT_DOUBLE_EQ(fraction(4000), 0.7);
  EXPECT_DOUBLE_EQ(fraction(2000), 0.6) << "half way on a logarithmic scale";
  EXPECT_DOUBLE_EQ(predict(2000)->ttft_s, 0.0015 * 2000);
  EXPECT_NEAR(fraction(500), 0.495, 0.002) << "the planner's 0.505, a hundredth less as at 1,000";
  EXPECT_DOUBLE_EQ(predict(500)->ttft_s, 0.25);
  EXPECT_DOUBLE_EQ(fraction(8000), 0.74) << "the planner's 0.58, and 0.16 more as at 4,000";
  EXPECT_DOUBLE_EQ(predict(8000)->ttft_s, 32);
  EXPECT_EQ(fraction(499), -1) << "too far from what was searched";
  EXPECT_EQ(fraction(8001), -1);
  EXPECT_FALSE(table.Predict(Scheme::kRunaheadDirect, 2, 2000, solve).has_value());
  EXPECT_FALSE(table.Predict(Scheme::kRunaheadChain, 3, 2000, solve).has_value());
}

TEST(PartitionTable, LeavesEveryRankAShareBeyondItsEntries) {
  PartitionTable table;
  table.Put({Scheme::kRunaheadChain, Partition({0, 990, 1000}), 1});
  const auto solve = [](Scheme /*scheme*/, int /*ranks*/, int64_t tokens) -> SearchResult {
    const double first = tokens == 1000 ? 0.5 : 0.9;
    return {FractionPartition(tokens, std::vector{first, 1 - first}), 1, 1};
  };
  const Partition partition = table.Predict(Scheme::kRunaheadChain, 2, 2000, solve)->partition;
  EXPECT_EQ(partition.rows(1), 14) << "a tenth of its 0.1, beside 0.9 + 0.49";
}

TEST(PartitionTable, PredictsBeyondItsEntriesWhatASearchWouldFind) {
  const Cluster cluster = ParseCluster(FindClusterPreset("8xh200-nvlink").toml, "8xh200-nvlink");
  const WorkShape shape = SevenBillion();
  const ClusterCosts all = cluster.CostsFor(shape, "");
  const Scheme scheme = Scheme::kRunaheadDirect;
  for (const std::vector<int>& members : {std::vector{0, 1}, std::vector{0, 1, 2, 3}}) {
    const ClusterCosts costs = all.Select(members);
    ClusterCosts estimated = costs;  // a profile that is not quite right
    for (DeviceCost& device : estimated.devices) {
      for (RowCost& knot : device.knots) knot.pair_s *= 1.2;
    }
    const auto solve = [&](Scheme way, int /*ranks*/, int64_t tokens) {
      return SolvePartition(shape, estimated, way, tokens, 0);
    };
    for (const int64_t longest : {int64_t{8192}, int64_t{16384}, int64_t{32768}}) {
      PartitionTable table;
      for (int64_t tokens = 1024; tokens < longest; tokens *= 2) {
        const SearchResult found = SolvePartition(shape, costs, scheme, tokens);
        table.Put({scheme, found.partition, found.cost});
      }
      const SearchResult best = SolvePartition(shape, costs, scheme, longest);
      const auto predicted = table.Predict(scheme, costs.ranks(), longest, solve);
      ASSERT_TRUE(predicted.has_value());
      EXPECT_LT(Simulate(shape, costs, scheme, predicted->partition).ttft_s, 1.02 * best.cost)
          << longest << " tokens: " << predicted->partition.ToString() << ", searched " << best.partition.ToString();
      EXPECT_NEAR(predicted->ttft_s, best.cost, 0.05 * best.cost) << longest;
    }
  }
}

}  // namespace
}  // namespace runahead
