// Which rows travel: all that a later query sees, and none that no later query sees.
#include "plan/hand_over.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace runahead {
namespace {

TEST(HandOver, WithoutWindowsAChainMovesPrefixes) {
  const Partition partition({0, 4, 7, 9});
  EXPECT_EQ(HandedOver(partition, Topology::kChain, 0, 1, {}), (RowRange{0, 4}));
  EXPECT_EQ(HandedOver(partition, Topology::kChain, 1, 2, {}), (RowRange{0, 7}));
  EXPECT_TRUE(HandedOver(partition, Topology::kChain, 0, 2, {}).empty());
  EXPECT_EQ(HandedOver(partition, Topology::kDirect, 0, 2, {}), (RowRange{0, 4}));
  EXPECT_EQ(HandedOver(partition, Topology::kDirect, 1, 2, {}), (RowRange{4, 7}));
}

TEST(HandOver, AWindowShortensIt) {
  const Partition partition({0, 100, 200, 210, 300});
  EXPECT_EQ(HandedOver(partition, Topology::kChain, 0, 1, {.window = 30}), (RowRange{71, 100}));
  EXPECT_EQ(HandedOver(partition, Topology::kChain, 2, 3, {.window = 30}), (RowRange{181, 210}));
  EXPECT_EQ(HandedOver(partition, Topology::kDirect, 1, 3, {.window = 30}), (RowRange{181, 200}));
  EXPECT_TRUE(HandedOver(partition, Topology::kDirect, 0, 3, {.window = 30}).empty());
  EXPECT_TRUE(HandedOver(partition, Topology::kChain, 0, 1, {.window = 1}).empty());
  EXPECT_EQ(HandedOver(partition, Topology::kChain, 0, 1, {.window = 1000}), (RowRange{0, 100}));
}

TEST(HandOver, TheLastLayerServesTheLastRowAlone) {
  const Partition partition({0, 100, 200, 300});
  EXPECT_EQ(HandedOver(partition, Topology::kChain, 1, 2, {.window = 150, .last = true}), (RowRange{150, 200}));
  EXPECT_TRUE(HandedOver(partition, Topology::kChain, 0, 1, {.window = 150, .last = true}).empty());
  EXPECT_EQ(HandedOver(partition, Topology::kChain, 0, 1, {.window = 0, .last = true}), (RowRange{0, 100}));
  EXPECT_TRUE(HandedOver(partition, Topology::kDirect, 0, 1, {.window = 0, .last = true}).empty());
  EXPECT_EQ(HandedOver(partition, Topology::kDirect, 0, 2, {.window = 0, .last = true}), (RowRange{0, 100}));
}

TEST(HandOver, BehindAPrefixOnlyNewRowsTravelInTheChain) {
  const Partition partition({50, 100, 200, 300});
  EXPECT_EQ(HandedOver(partition, Topology::kChain, 0, 1, {}), (RowRange{50, 100}));
  EXPECT_EQ(HandedOver(partition, Topology::kChain, 1, 2, {}), (RowRange{50, 200}));
  EXPECT_EQ(HandedOver(partition, Topology::kDirect, 0, 2, {}), (RowRange{50, 100}));
  EXPECT_EQ(HandedOver(partition, Topology::kChain, 0, 1, {.window = 80}), (RowRange{50, 100}));
}

TEST(HandOver, ThePrefixComesFromTheLastRank) {
  const Partition partition({50, 100, 200, 300});
  EXPECT_EQ(PrefixHandedOver(partition, 0, 0, {}), (RowRange{0, 50}));
  EXPECT_EQ(PrefixHandedOver(partition, 20, 1, {}), (RowRange{20, 50}));
  EXPECT_TRUE(PrefixHandedOver(partition, 50, 0, {}).empty());
  EXPECT_TRUE(PrefixHandedOver(partition, 0, 2, {}).empty());              // it has them
  EXPECT_TRUE(PrefixHandedOver(partition, 0, 0, {.last = true}).empty());  // where only the last rank attends
  EXPECT_EQ(PrefixHandedOver(partition, 0, 0, {.window = 11}), (RowRange{40, 50}));
  EXPECT_TRUE(PrefixHandedOver(partition, 0, 1, {.window = 11}).empty());  // its queries see none of them
}

/// Follows every row through the ranks, as the exchanges do, and asks each query whether it has what it sees.
TEST(HandOver, EveryQueryFindsTheRowsItSees) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    std::vector<int64_t> cuts{0};
    const int ranks = 1 + static_cast<int>(random() % 6);
    for (int rank = 0; rank < ranks; ++rank) cuts.push_back(cuts.back() + 1 + static_cast<int64_t>(random() % 40));
    const Partition partition(cuts);
    const int64_t n = partition.tokens();
    const LayerReach layer{static_cast<int64_t>(random() % 60), random() % 2 == 0};
    for (const Topology topology : {Topology::kChain, Topology::kDirect}) {
      std::vector<std::vector<bool>> has(static_cast<size_t>(ranks), std::vector<bool>(static_cast<size_t>(n)));
      for (int rank = 0; rank < ranks; ++rank) {
        auto& mine = has[static_cast<size_t>(rank)];
        for (int64_t i = partition.begin(rank); i < partition.end(rank); ++i) mine[static_cast<size_t>(i)] = true;
        for (int from = 0; from < rank; ++from) {
          const RowRange rows = HandedOver(partition, topology, from, rank, layer);
          for (int64_t i = rows.begin; i < rows.end; ++i) {
            ASSERT_TRUE(has[static_cast<size_t>(from)][static_cast<size_t>(i)]) << "rank " << from << " lacks " << i;
            mine[static_cast<size_t>(i)] = true;
          }
        }
        const bool attends = !layer.last || rank == ranks - 1;
        const int64_t first_query = layer.last ? n - 1 : partition.begin(rank);
        for (int64_t query = first_query; attends && query < partition.end(rank); ++query) {
          const int64_t first = layer.window == 0 ? 0 : std::max<int64_t>(0, query - layer.window + 1);
          for (int64_t key = first; key <= query; ++key) ASSERT_TRUE(mine[static_cast<size_t>(key)]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace runahead
