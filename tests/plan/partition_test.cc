#include "plan/partition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "runahead/error.h"

namespace runahead {
namespace {

double CostliestChunk(const Partition& partition, const ChunkCost& cost) {
  double costliest = 0;
  for (int rank = 0; rank < partition.ranks(); ++rank) {
    costliest = std::max(costliest, cost(partition.begin(rank), partition.end(rank)));
  }
  return costliest;
}

TEST(Partition, RefusesCutsThatDoNotIncrease) {
  EXPECT_THROW(Partition({}), ConfigError);
  EXPECT_THROW(Partition({0}), ConfigError);
  EXPECT_THROW(Partition({-1, 5}), ConfigError);
  EXPECT_THROW(Partition({0, 5, 5}), ConfigError);
  EXPECT_THROW(Partition({0, 5, 4}), ConfigError);
  EXPECT_EQ(Partition({0, 4, 7, 9}).ToString(), "4/3/2");
  EXPECT_EQ(Partition({0, 4, 7, 9}).Behind(5), Partition({5, 9, 12, 14}));
  EXPECT_EQ(Partition({5, 9, 12, 14}).origin(), 5);
}

TEST(ChunkCost, CountsTheCausalPairsOfTheWorkedExample) {
  // The paper's 9 tokens on 3 processes, split 4/3/2: 10, 18 and 17 query-key products when only causal work is done.
  const ChunkCost pairs{0, 1};
  EXPECT_DOUBLE_EQ(pairs(0, 4), 1 + 2 + 3 + 4);
  EXPECT_DOUBLE_EQ(pairs(4, 7), 5 + 6 + 7);
  EXPECT_DOUBLE_EQ(pairs(7, 9), 8 + 9);
}

TEST(EvenPartition, SpreadsTheRemainderOverTheFirstRanks) {
  EXPECT_EQ(EvenPartition(10, 4).cuts(), (std::vector<int64_t>{0, 3, 6, 8, 10}));
  EXPECT_EQ(EvenPartition(8, 1).cuts(), (std::vector<int64_t>{0, 8}));
}

TEST(EveryPartition, UsesFewerRanksForFewerTokens) {
  const std::vector<double> fractions{5, 1, 1, 1};
  for (int64_t tokens = 1; tokens < 6; ++tokens) {
    const int ranks = static_cast<int>(std::min<int64_t>(tokens, 4));
    EXPECT_EQ(EvenPartition(tokens, 4).ranks(), ranks);
    EXPECT_EQ(FractionPartition(tokens, fractions).ranks(), ranks);
    EXPECT_EQ(BalancedPartition(tokens, 4, {1, 1}).ranks(), ranks);
  }
}

TEST(FractionPartition, RoundsToTheNearestCutAndKeepsATokenForEveryRank) {
  const std::vector<double> fractions{4, 3, 2};
  EXPECT_EQ(FractionPartition(9, fractions).ToString(), "4/3/2");
  EXPECT_EQ(FractionPartition(900, fractions).ToString(), "400/300/200");
  const std::vector<double> extreme{1e-9, 1, 1e-9};
  EXPECT_EQ(FractionPartition(5, extreme).ToString(), "1/3/1");
}

TEST(RoundCuts, MovesEachCutToTheNearestMultiple) {
  EXPECT_EQ(RoundCuts(Partition({0, 2202, 4096}), 128).cuts(), (std::vector<int64_t>{0, 2176, 4096}));
  EXPECT_EQ(RoundCuts(Partition({0, 2250, 3300, 5001}), 100).cuts(), (std::vector<int64_t>{0, 2300, 3300, 5001}));
}

TEST(RoundCuts, LeavesShortChunksAlone) {
  const Partition partition({0, 1023, 4096});
  EXPECT_EQ(RoundCuts(partition, 128), partition);
  EXPECT_EQ(RoundCuts(Partition({0, 1, 2}), 1).cuts(), (std::vector<int64_t>{0, 1, 2}));
}

TEST(FractionPartition, RefusesWhatIsNotPositive) {
  for (const double wrong :
       {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    const std::vector<double> fractions{1, wrong};
    EXPECT_THROW(FractionPartition(9, fractions), ConfigError) << wrong;
  }
}

TEST(BalancedPartition, IsEvenWithoutAttention) {
  EXPECT_EQ(BalancedPartition(1200, 4, {1, 0}).ToString(), "300/300/300/300");
}

TEST(BalancedPartition, GivesLaterRanksFewerTokensWithAttention) {
  const Partition partition = BalancedPartition(16384, 4, {100, 1});
  for (int rank = 1; rank < 4; ++rank) EXPECT_LT(partition.rows(rank), partition.rows(rank - 1));
}

// No cut moved by one token either way makes the costliest chunk cheaper, and the bound of an equal share is met up
// to one token's cost.
TEST(BalancedPartition, CannotBeImprovedByMovingACut) {
  for (const int64_t tokens : {3, 17, 333, 5000}) {
    for (const int ranks : {2, 3, 5}) {
      const ChunkCost cost{50, 1};
      const Partition partition = BalancedPartition(tokens, ranks, cost);
      const double best = CostliestChunk(partition, cost);
      const double one_token = cost(tokens - 1, tokens);
      EXPECT_LE(best, cost(0, tokens) / partition.ranks() + one_token);
      for (size_t cut = 1; cut + 1 < partition.cuts().size(); ++cut) {
        for (const int64_t step : {-1, 1}) {
          std::vector<int64_t> cuts = partition.cuts();
          cuts[cut] += step;
          if (cuts[cut] <= cuts[cut - 1] || cuts[cut] >= cuts[cut + 1]) continue;
          EXPECT_GE(CostliestChunk(Partition(cuts), cost), best * (1 - 1e-12)) << partition.ToString();
        }
      }
    }
  }
}

}  // namespace
}  // namespace runahead
