#include "plan/counters.h"

#include "base/check.h"

namespace runahead {
namespace {

/// What a rank of a scheme that cuts the prompt computes.
RankCounters CountCompute(const WorkShape& shape, Scheme scheme, const Partition& partition, int rank) {
  const int64_t begin = partition.begin(rank);
  const int64_t end = partition.end(rank);
  const int64_t tokens = partition.tokens();
  const bool dense = scheme == Scheme::kTspDense;
  const auto rows = static_cast<double>(end - begin);
  const auto pairs = [&](int layer, int64_t first) {
    const int64_t seen = dense ? (end - first) * tokens : CausalPairs(first, end, shape.window(layer));
    return static_cast<double>(seen);
  };
  RankCounters counters;
  counters.dot_products = (end - begin) * (dense ? tokens : end);
  for (int layer = 0; layer < shape.layers - 1; ++layer) {
    counters.linear_flops += rows * shape.LinearFlops(layer);
    counters.attention_flops += shape.PairFlops() * pairs(layer, begin);
  }
  counters.linear_flops += rows * shape.KeyValueFlops();
  if (rank + 1 == partition.ranks()) {
    counters.linear_flops += shape.OtherLinearFlops(shape.layers - 1) + shape.HeadFlops();
    counters.attention_flops += shape.PairFlops() * pairs(shape.layers - 1, end - 1);
  }
  return counters;
}

/// Which layers hand over alike: one of each window, and how many others with it; the last layer is none of them.
struct AlikeLayers {
  int layer = 0;
  int count = 0;
};

std::vector<AlikeLayers> LayersBeforeTheLast(const WorkShape& shape) {
  std::vector<AlikeLayers> all;
  for (const LayersOfWindow& alike : shape.FirstLayers(shape.layers - 1)) {
    int layer = 0;
    while (shape.window(layer) != alike.window) ++layer;
    all.push_back({layer, alike.layers});
  }
  return all;
}

/// Rows that travel from one rank to another in all layers.
int64_t RowsInAllLayers(const WorkShape& shape, const std::vector<AlikeLayers>& before_the_last, Scheme scheme,
                        const Partition& partition, int from, int to) {
  int64_t rows = HandOver(shape, scheme, partition, shape.layers - 1, from, to).rows();
  for (const auto& [layer, count] : before_the_last) {
    rows += count * HandOver(shape, scheme, partition, layer, from, to).rows();
  }
  return rows;
}

/// Every rank does its share of one rank's work, and sends 2 (p - 1) / p of the activations twice a layer, which is
/// what a ring all-reduce moves.
std::vector<RankCounters> CountTensorParallel(const WorkShape& shape, const Partition& partition) {
  const int ranks = partition.ranks();
  RankCounters share = CountCompute(shape, Scheme::kSingle, EvenPartition(partition.tokens(), 1), 0);
  share.linear_flops /= ranks;
  share.attention_flops /= ranks;
  const size_t activations =
      static_cast<size_t>(partition.tokens()) * static_cast<size_t>(shape.hidden) * shape.element_bytes;
  const auto all_reduces = 2 * static_cast<size_t>(shape.layers);
  const auto others = static_cast<size_t>(ranks - 1);
  share.sent_bytes = share.received_bytes = all_reduces * 2 * others * activations / static_cast<size_t>(ranks);
  return std::vector<RankCounters>(static_cast<size_t>(ranks), share);
}

}  // namespace

RowRange HandOver(const WorkShape& shape, Scheme scheme, const Partition& partition, int layer, int from, int to) {
  const LayerReach reach{shape.window(layer), layer + 1 == shape.layers};
  switch (scheme) {
    case Scheme::kRunaheadChain:
      return HandedOver(partition, Topology::kChain, from, to, reach);
    case Scheme::kRunaheadDirect:
      return HandedOver(partition, Topology::kDirect, from, to, reach);
    case Scheme::kTspDense:
    case Scheme::kTspCausal:
      return from == to ? RowRange{} : RowRange{partition.begin(from), partition.end(from)};
    case Scheme::kSingle:
    case Scheme::kTensorParallel:
      return {};
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown scheme");
}

std::vector<RankCounters> CountWork(const WorkShape& shape, Scheme scheme, const Partition& partition) {
  CHECK_GT(shape.layers, 0);
  if (scheme == Scheme::kTensorParallel) return CountTensorParallel(shape, partition);
  std::vector<RankCounters> all;
  for (int rank = 0; rank < partition.ranks(); ++rank) all.push_back(CountCompute(shape, scheme, partition, rank));
  const std::vector<AlikeLayers> before_the_last = LayersBeforeTheLast(shape);
  for (int from = 0; from < partition.ranks(); ++from) {
    for (int to = 0; to < partition.ranks(); ++to) {
      const int64_t rows = RowsInAllLayers(shape, before_the_last, scheme, partition, from, to);
      if (rows == 0) continue;
      const size_t bytes = static_cast<size_t>(rows) * shape.RowBytes();
      all[static_cast<size_t>(from)].sent_bytes += bytes;
      all[static_cast<size_t>(from)].sent_entries += 2 * HandOver(shape, scheme, partition, 0, from, to).rows();
      all[static_cast<size_t>(to)].received_bytes += bytes;
    }
  }
  return all;
}

}  // namespace runahead
