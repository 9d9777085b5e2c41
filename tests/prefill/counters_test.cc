// What travels and what is computed, counted: the paper's worked example, 9 tokens on 3 ranks split 4/3/2.
#include <gtest/gtest.h>

#include <map>

#include "link/local/local_fabric.h"
#include "prefill/exchanges.h"
#include "tensor/cpu_device.h"

namespace runahead {
namespace {

constexpr KvShape kShape{.layers = 2, .kv_heads = 1, .head_dim = 1, .dtype = DType::kF32};

/// Counts the rows that are sent, and lets nobody wait: every transfer is done when it is posted.
class CountingFabric final : public Fabric {
 public:
  explicit CountingFabric(int ranks) : ranks_(ranks) {}

  [[nodiscard]] int ranks() const override { return ranks_; }
  Link& Between(int from, int to) override { return links_[{from, to}]; }
  void Fail(const Status& /*reason*/) override {}

  [[nodiscard]] int64_t rows() const {
    int64_t sum = 0;
    for (const auto& [ends, link] : links_) sum += link.rows;
    return sum;
  }

 private:
  class Done final : public Transfer {
    Status Wait(Deadline /*deadline*/) override { return Status::Ok(); }
    Status OrderBefore(Stream& /*stream*/, Deadline /*deadline*/) override { return Status::Ok(); }
  };
  struct CountingLink final : Link {
    std::unique_ptr<Transfer> Send(const KvSpan& span, Stream& /*after*/) override {
      rows += span.rows();
      return std::make_unique<Done>();
    }
    std::unique_ptr<Transfer> Receive(const KvSpan& /*span*/) override { return std::make_unique<Done>(); }
    int64_t rows = 0;
  };

  int ranks_;
  std::map<std::pair<int, int>, CountingLink> links_;
};

/// Rows sent in layer `layer` of two by all ranks together.
int64_t RowsSent(Strategy strategy, Topology topology, const Partition& partition, int layer = 0) {
  const auto device = MakeCpuDevice();
  const auto stream = device->NewStream();
  CountingFabric fabric(partition.ranks());
  for (int rank = 0; rank < partition.ranks(); ++rank) {
    KvCache cache(*device, kShape, partition.tokens());
    const auto exchange = MakeExchange(
        strategy, topology,
        {rank, &partition, {}, cache, &fabric, std::chrono::duration<double>(1), nullptr, nullptr, {}, {}});
    exchange->Start(*stream);
    EXPECT_TRUE(exchange->LayerReady(layer, *stream).ok());
    EXPECT_TRUE(exchange->Finish(*stream).ok());
  }
  return fabric.rows();
}

TEST(WorkedExample, RunaheadMovesElevenRowsWhereTheAllGatherMovesEighteen) {
  // Keys and values of a row are two entries: 22 against 36.
  EXPECT_EQ(2 * RowsSent(Strategy::kRunahead, Topology::kChain, Partition({0, 4, 7, 9})), 22);
  EXPECT_EQ(2 * RowsSent(Strategy::kTspDense, Topology::kChain, EvenPartition(9, 3)), 36);
  EXPECT_EQ(2 * RowsSent(Strategy::kTspCausal, Topology::kChain, EvenPartition(9, 3)), 36);
  // Straight to every later rank: 4 rows twice and 3 rows once.
  EXPECT_EQ(2 * RowsSent(Strategy::kRunahead, Topology::kDirect, Partition({0, 4, 7, 9})), 22);
  EXPECT_EQ(RowsSent(Strategy::kSingle, Topology::kChain, EvenPartition(9, 1)), 0);
}

TEST(WorkedExample, InTheLastLayerOnlyTheLastRankNeedsRows) {
  EXPECT_EQ(RowsSent(Strategy::kRunahead, Topology::kChain, Partition({0, 4, 7, 9}), 1), 11);
  EXPECT_EQ(RowsSent(Strategy::kRunahead, Topology::kDirect, Partition({0, 4, 7, 9}), 1), 7);
}

TEST(WorkedExample, OnlyTheDenseBaselineReadsKeysBehindItsChunk) {
  const auto device = MakeCpuDevice();
  CountingFabric fabric(3);
  const Partition partition = EvenPartition(9, 3);
  KvCache cache(*device, kShape, 9);
  const ExchangeContext context{1,       &partition, {}, cache, &fabric, std::chrono::duration<double>(1),
                                nullptr, nullptr,    {}, {}};
  const auto dense = MakeExchange(Strategy::kTspDense, Topology::kChain, context)->Extent(6);
  EXPECT_EQ(partition.rows(1) * dense.rows, 27);  // query-key products of a rank
  EXPECT_EQ(dense.causal, CausalWork::kDense);
  for (const Strategy strategy : {Strategy::kTspCausal, Strategy::kRunahead}) {
    const auto causal = MakeExchange(strategy, Topology::kChain, context)->Extent(6);
    EXPECT_EQ(causal.rows, 6);
    EXPECT_EQ(causal.causal, CausalWork::kSkip);
  }
}

}  // namespace
}  // namespace runahead
