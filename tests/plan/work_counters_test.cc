// What each rank computes and sends: the paper's worked example, and sums that must not depend on the cuts.
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "plan/counters.h"
#include "tests/plan/random_cases.h"

namespace runahead {
namespace {

int64_t EntriesMoved(Scheme scheme, const Partition& partition) {
  int64_t sum = 0;
  for (const RankCounters& rank : CountWork(SmallShape(), scheme, partition)) sum += rank.sent_entries;
  return sum;
}

std::vector<int64_t> DotProducts(Scheme scheme, const Partition& partition) {
  std::vector<int64_t> products;
  for (const RankCounters& rank : CountWork(SmallShape(), scheme, partition)) products.push_back(rank.dot_products);
  return products;
}

TEST(Counters, GiveTheWorkedExampleOfThePaper) {
  const Partition uneven({0, 4, 7, 9});
  const Partition even = EvenPartition(9, 3);
  EXPECT_EQ(DotProducts(Scheme::kTspDense, even), (std::vector<int64_t>{27, 27, 27}));
  EXPECT_EQ(DotProducts(Scheme::kRunaheadChain, uneven), (std::vector<int64_t>{16, 21, 18}));
  EXPECT_EQ(EntriesMoved(Scheme::kTspDense, even), 36);
  EXPECT_EQ(EntriesMoved(Scheme::kRunaheadChain, uneven), 22);
  EXPECT_EQ(EntriesMoved(Scheme::kRunaheadDirect, uneven), 22);
}

TEST(CausalPairs, CountEveryQueryAndWhatItSees) {
  for (const int64_t window : {0, 1, 3, 8, 40}) {
    for (int64_t begin = 0; begin < 20; ++begin) {
      int64_t expected = 0;
      for (int64_t end = begin; end <= 20; ++end) {
        EXPECT_EQ(CausalPairs(begin, end, window), expected) << begin << " " << end << " " << window;
        expected += window == 0 ? end + 1 : std::min(end + 1, window);
      }
    }
  }
}

// Wherever the cuts are, the ranks together do one rank's work, but for the last layer's rows of others than the
// last.
TEST(Counters, OfAllRanksAddUpToOneRanks) {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    const WorkShape shape = RandomShape(random);
    const Partition partition = RandomPartition(random, 1 + static_cast<int>(random() % 6));
    const RankCounters whole = CountWork(shape, Scheme::kSingle, EvenPartition(partition.tokens(), 1)).front();
    for (const Scheme scheme : {Scheme::kRunaheadChain, Scheme::kRunaheadDirect, Scheme::kTspCausal}) {
      RankCounters sum;
      for (const RankCounters& rank : CountWork(shape, scheme, partition)) {
        sum.linear_flops += rank.linear_flops;
        sum.attention_flops += rank.attention_flops;
        sum.sent_bytes += rank.sent_bytes;
        sum.received_bytes += rank.received_bytes;
      }
      EXPECT_DOUBLE_EQ(sum.linear_flops, whole.linear_flops);
      EXPECT_DOUBLE_EQ(sum.attention_flops, whole.attention_flops);
      EXPECT_EQ(sum.sent_bytes, sum.received_bytes);
    }
  }
}

// Whatever a rank's queries see before its chunk reaches it, over one hop or several, and the chain sends nothing
// that nobody behind it reads.
TEST(HandOver, BringsEveryRankWhatItsQueriesSee) {
  std::mt19937 random(2);
  for (int round = 0; round < 50; ++round) {
    const WorkShape shape = RandomShape(random);
    const Partition partition = RandomPartition(random, 2 + static_cast<int>(random() % 5));
    const int last_layer = shape.layers - 1;
    for (int layer = 0; layer < shape.layers; ++layer) {
      for (int rank = 1; rank < partition.ranks(); ++rank) {
        const int64_t begin = partition.begin(rank);
        const bool last = rank + 1 == partition.ranks();
        if (layer == last_layer && !last) continue;  // makes keys and values only
        const int64_t query = layer == last_layer ? partition.tokens() - 1 : begin;
        const int64_t window = shape.window(layer);
        const int64_t sees = window == 0 ? 0 : std::max<int64_t>(0, query - window + 1);
        const RowRange chain = HandOver(shape, Scheme::kRunaheadChain, partition, layer, rank - 1, rank);
        EXPECT_LE(std::min(chain.begin, begin), std::max(sees, int64_t{0}));
        EXPECT_EQ(chain.rows(), std::max<int64_t>(0, begin - sees));
        int64_t direct_rows = 0;
        for (int from = 0; from < rank; ++from) {
          direct_rows += HandOver(shape, Scheme::kRunaheadDirect, partition, layer, from, rank).rows();
        }
        EXPECT_EQ(direct_rows, chain.rows());
      }
    }
  }
}

TEST(Counters, TensorParallelSharesTheWorkAndMovesActivations) {
  const WorkShape shape = SmallShape();
  const RankCounters whole = CountWork(shape, Scheme::kSingle, EvenPartition(64, 1)).front();
  const std::vector<RankCounters> four = CountWork(shape, Scheme::kTensorParallel, EvenPartition(64, 4));
  EXPECT_DOUBLE_EQ(4 * four.front().linear_flops, whole.linear_flops);
  const size_t activations = 64U * static_cast<size_t>(shape.hidden) * shape.element_bytes;
  EXPECT_EQ(four.front().sent_bytes, static_cast<size_t>(shape.layers) * 2 * 2 * 3 * activations / 4);
}

}  // namespace
}  // namespace runahead
