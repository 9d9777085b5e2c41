// What each rank of a prompt phase computes, and between which ranks rows travel, layer by layer.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "plan/cluster_costs.h"
#include "plan/counters.h"
#include "plan/partition.h"
#include "plan/scheme.h"
#include "plan/work_shape.h"

namespace runahead {

/// Ranks [begin, end).
struct RankRange {
  int begin = 0;
  int end = 0;

  [[nodiscard]] int count() const { return std::max(0, end - begin); }
};

/// The work of one partition on the ranks of `costs`, which are as many. Borrows all but the scheme. Asking for a
/// range of ranks takes a logarithm of their number at most.
class PhaseWork {
 public:
  PhaseWork(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme, const Partition& partition);

  // ---- Who exchanges with whom, in the order of the exchanges; in some layers nothing travels between the two
  /// Ranks that `rank` may get rows from.
  [[nodiscard]] int Sources(int rank) const;
  [[nodiscard]] int Source(int rank, int i) const;
  /// Ranks that `rank` may send its own rows to.
  [[nodiscard]] int Receivers(int rank) const;
  [[nodiscard]] int Receiver(int rank, int i) const;

  [[nodiscard]] size_t Bytes(int from, int to, int layer) const {
    return static_cast<size_t>(HandOver(shape_, scheme_, partition_, layer, from, to).rows()) * shape_.RowBytes();
  }
  /// Whether a rank's receivers of one layer all get as many bytes.
  [[nodiscard]] bool SameBytesToAll(int layer) const {
    return scheme_ != Scheme::kRunaheadDirect || shape_.window(layer) == 0;
  }
  /// Those that send rows to `rank` in `layer`; of all-gathers all others, as a range of that length.
  [[nodiscard]] RankRange Senders(int rank, int layer) const;
  /// Those that get rows of `rank` in `layer`, in the order of the sends.
  [[nodiscard]] std::array<RankRange, 2> ReceiverRanges(int rank, int layer) const;

  /// Compute from the exchange of `layer` (-1: from the start) to the next one, or to the rank's end.
  [[nodiscard]] double Seconds(int rank, int layer) const;

 private:
  /// Seconds of a rank's stretches of compute.
  struct RankCompute {
    double before_s = 0;
    double layer_s = 0;
    double pair_s = 0;
    double skipped_s = 0;  // time saved in the last layer, where no queries are projected, s
    int64_t begin = 0;
    int64_t end = 0;
  };

  [[nodiscard]] RankCompute ComputeOf(int rank) const;
  /// What the queries [first, end) are computed with, in pairs that are seen.
  [[nodiscard]] double Pairs(int rank, int64_t first, int64_t end, int layer) const;

  const WorkShape& shape_;
  const ClusterCosts& costs_;
  Scheme scheme_;
  const Partition& partition_;
  int ranks_;
  std::vector<RankCompute> compute_;  // [ranks]
};

}  // namespace runahead
