#include "plan/phase_work.h"

#include "base/check.h"

namespace runahead {
namespace {

/// The first of [begin, end) for which `holds`, or end; what holds for one holds for all behind it.
template <typename Holds>
int FirstOf(int begin, int end, const Holds& holds) {
  while (begin < end) {
    const int middle = begin + (end - begin) / 2;
    if (holds(middle)) {
      end = middle;
    } else {
      begin = middle + 1;
    }
  }
  return begin;
}

bool IsTsp(Scheme scheme) { return scheme == Scheme::kTspDense || scheme == Scheme::kTspCausal; }

}  // namespace

PhaseWork::PhaseWork(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme, const Partition& partition)
    : shape_(shape), costs_(costs), scheme_(scheme), partition_(partition), ranks_(partition.ranks()) {
  for (int rank = 0; rank < ranks_; ++rank) compute_.push_back(ComputeOf(rank));
}

int PhaseWork::Sources(int rank) const {
  switch (scheme_) {
    case Scheme::kRunaheadChain:
      return rank > 0 ? 1 : 0;
    case Scheme::kRunaheadDirect:
      return rank;
    case Scheme::kTspDense:
    case Scheme::kTspCausal:
      return ranks_ - 1;
    case Scheme::kSingle:
    case Scheme::kTensorParallel:
      return 0;
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown scheme");
}

int PhaseWork::Source(int rank, int i) const {
  if (scheme_ == Scheme::kRunaheadChain) return rank - 1;
  return i < rank ? i : i + 1;
}

int PhaseWork::Receivers(int rank) const {
  if (scheme_ == Scheme::kRunaheadDirect) return ranks_ - 1 - rank;
  return IsTsp(scheme_) ? ranks_ - 1 : 0;
}

int PhaseWork::Receiver(int rank, int i) const {
  return scheme_ == Scheme::kRunaheadDirect ? rank + 1 + i : (rank + 1 + i) % ranks_;
}

RankRange PhaseWork::Senders(int rank, int layer) const {
  if (IsTsp(scheme_)) return {0, ranks_ - 1};
  const int first = rank - Sources(rank);
  // A later source's rows are seen when an earlier one's are.
  return {FirstOf(first, rank, [&](int from) { return Bytes(from, rank, layer) > 0; }), rank};
}

std::array<RankRange, 2> PhaseWork::ReceiverRanges(int rank, int layer) const {
  if (IsTsp(scheme_)) return {RankRange{rank + 1, ranks_}, RankRange{0, rank}};
  if (scheme_ != Scheme::kRunaheadDirect) return {};
  const bool last = layer + 1 == shape_.layers;
  const int first = last ? std::max(ranks_ - 1, rank + 1) : rank + 1;
  // What a later receiver sees an earlier one sees too.
  return {RankRange{first, FirstOf(first, ranks_, [&](int to) { return Bytes(rank, to, layer) == 0; })}, RankRange{}};
}

PhaseWork::RankCompute PhaseWork::ComputeOf(int rank) const {
  const RowCost cost = costs_.devices[static_cast<size_t>(rank)].At(partition_.rows(rank));
  const double query = shape_.QueryFlops();
  const double skipped = cost.before_s * query / (query + shape_.KeyValueFlops());
  return {cost.before_s,          cost.layer_s,        cost.pair_s, std::min(skipped, cost.layer_s),
          partition_.begin(rank), partition_.end(rank)};
}

double PhaseWork::Pairs(int rank, int64_t first, int64_t end, int layer) const {
  const auto seen = static_cast<double>(CausalPairs(first, end, shape_.window(layer)));
  if (scheme_ != Scheme::kTspDense) return seen;
  const auto all = static_cast<double>((end - first) * partition_.tokens());
  return seen + costs_.devices[static_cast<size_t>(rank)].masked_pair * (all - seen);
}

double PhaseWork::Seconds(int rank, int layer) const {
  const RankCompute& compute = compute_[static_cast<size_t>(rank)];
  const int last = shape_.layers - 1;
  const double skipped = layer + 1 == last ? compute.skipped_s : 0;
  if (layer < 0) return compute.before_s - skipped;
  if (layer < last) {
    return compute.layer_s - skipped + compute.pair_s * Pairs(rank, compute.begin, compute.end, layer);
  }
  if (rank + 1 < ranks_) return 0;
  const DeviceCost& device = costs_.devices[static_cast<size_t>(rank)];
  return device.finish_s + device.finish_pair_s * Pairs(rank, compute.end - 1, compute.end, layer);
}

}  // namespace runahead
