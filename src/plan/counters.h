// What each rank computes, and which rows travel: the one description that the simulator and the counters share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "plan/hand_over.h"
#include "plan/partition.h"
#include "plan/scheme.h"
#include "plan/work_shape.h"

namespace runahead {

/// The rows that rank `from` sends to rank `to` in `layer`, for the schemes that exchange rows of the cache; empty
/// where it sends none.
RowRange HandOver(const WorkShape& shape, Scheme scheme, const Partition& partition, int layer, int from, int to);

/// The work and the traffic of one rank in one prompt phase.
struct RankCounters {
  int64_t dot_products = 0;    // query-key pairs in one head of one layer, masked ones included
  double linear_flops = 0;     // FLOPs of the matmuls of all layers and of the head
  double attention_flops = 0;  // FLOPs of visible pairs; for kTspDense those of the whole map
  size_t sent_bytes = 0;       // bytes sent in all layers
  size_t received_bytes = 0;   // bytes received in all layers
  int64_t sent_entries = 0;    // K and V vectors of one head sent in one layer: 2 a row
};

/// One entry for each rank of the partition; for kTensorParallel one for each of `partition.ranks()` ranks, which all
/// work on all tokens. The worked example of the paper (section 3, 9 tokens on 3 ranks): kTspDense gives 27 dot
/// products a rank and 36 entries in all, kRunaheadChain at 4/3/2 gives 16, 21 and 18, and 22 entries.
std::vector<RankCounters> CountWork(const WorkShape& shape, Scheme scheme, const Partition& partition);

}  // namespace runahead
