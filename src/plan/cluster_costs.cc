#include "plan/cluster_costs.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace runahead {
namespace {

RowCost Line(const RowCost& a, const RowCost& b, int64_t rows) {
  const double t = static_cast<double>(rows - a.rows) / static_cast<double>(b.rows - a.rows);
  const auto mix = [t](double from, double to) { return std::max(0.0, from + t * (to - from)); };
  const double held = std::clamp(t, 0.0, 1.0);  // a pair costs no less beyond what was measured
  return {rows, mix(a.before_s, b.before_s), mix(a.layer_s, b.layer_s), a.pair_s + held * (b.pair_s - a.pair_s)};
}

}  // namespace

RowCost DeviceCost::At(int64_t rows) const {
  CHECK(!knots.empty());
  if (knots.size() == 1) {
    const RowCost& only = knots.front();
    const double share = static_cast<double>(rows) / static_cast<double>(only.rows);
    return {rows, share * only.before_s, share * only.layer_s, only.pair_s};
  }
  auto above = std::upper_bound(knots.begin(), knots.end(), rows,
                                [](int64_t value, const RowCost& knot) { return value < knot.rows; });
  above = std::clamp(above, knots.begin() + 1, knots.end() - 1);
  return Line(*(above - 1), *above, rows);
}

DeviceCost DeviceCost::Slowed(double factor) const {
  DeviceCost slowed = *this;
  for (RowCost& knot : slowed.knots) {
    knot.before_s *= factor;
    knot.layer_s *= factor;
    knot.pair_s *= factor;
  }
  slowed.finish_s *= factor;
  slowed.finish_pair_s *= factor;
  return slowed;
}

DeviceCost CostFromRates(const WorkShape& shape, const DeviceRates& rates) {
  CHECK_GT(rates.flops, 0);
  CHECK_GT(rates.attention_flops, 0);
  const auto element = static_cast<double>(shape.element_bytes);
  // Two FLOPs for each weight and row; `flops` is of one row.
  const auto seconds = [&](double flops, double rows) {
    const double reading = rates.memory_bytes_per_s > 0 ? flops / 2 * element / rates.memory_bytes_per_s : 0;
    return std::max(rows * flops / rates.flops, reading);
  };
  const double before = shape.KeyValueFlops() + 2 * static_cast<double>(shape.hidden * shape.q_features());
  const double pair_s = shape.PairFlops() / rates.attention_flops;
  const double row_bytes_s =
      rates.memory_bytes_per_s > 0 ? static_cast<double>(shape.RowBytes()) / rates.memory_bytes_per_s : 0;
  // From here on arithmetic takes longer than reading.
  const double corner = rates.memory_bytes_per_s > 0 ? element / 2 * rates.flops / rates.memory_bytes_per_s : 1;
  const auto first = std::max<int64_t>(2, static_cast<int64_t>(std::ceil(corner)));

  DeviceCost cost;
  cost.name = rates.name;
  for (const int64_t rows : {int64_t{1}, first, 2 * first}) {
    const auto n = static_cast<double>(rows);
    cost.knots.push_back({rows, seconds(before, n) + rates.layer_overhead_s / 2,
                          seconds(shape.LinearFlops(), n) + rates.layer_overhead_s, pair_s});
  }
  cost.finish_s = seconds(shape.OtherLinearFlops() + shape.HeadFlops(), 1) + rates.layer_overhead_s;
  cost.finish_pair_s = std::max(pair_s, row_bytes_s);
  return cost;
}

LinkTable::LinkTable(int ranks, const LinkCost& all, Sharing sharing)
    : ranks_(ranks), sharing_(sharing), costs_{all} {
  CHECK_GT(ranks, 0);
}

void LinkTable::Set(int from, int to, const LinkCost& cost) {
  CHECK(0 <= from && from < ranks_ && 0 <= to && to < ranks_);
  if (index_.empty()) index_.assign(static_cast<size_t>(ranks_) * static_cast<size_t>(ranks_), 0);
  const auto known = std::find(costs_.begin(), costs_.end(), cost);
  index_[Pair(from, to)] = static_cast<uint32_t>(known - costs_.begin());
  if (known == costs_.end()) costs_.push_back(cost);
}

void LinkTable::SetHosts(std::vector<int> host_of_rank) {
  CHECK_EQ(host_of_rank.size(), static_cast<size_t>(ranks_));
  host_of_rank_ = std::move(host_of_rank);
}

bool LinkTable::AnyThread() const {
  return std::any_of(costs_.begin(), costs_.end(), [](const LinkCost& cost) { return cost.mover == Mover::kThread; });
}

std::array<size_t, 2> LinkTable::ResourcesOf(int from, int to) const {
  const auto n = static_cast<size_t>(ranks_);
  const auto out = static_cast<size_t>(from);
  const auto in = static_cast<size_t>(to);
  const auto host = [&](int rank) {
    return host_of_rank_.empty() ? size_t{0} : static_cast<size_t>(host_of_rank_[static_cast<size_t>(rank)]);
  };
  if (host(from) != host(to)) return {host(from), n + host(to)};
  switch (sharing_) {
    case Sharing::kPairs: {
      const size_t pair = 2 * n + Pair(from, to);
      return {pair, pair};
    }
    case Sharing::kPorts:
      return {2 * n + out, 3 * n + in};
    case Sharing::kBus:
      return {2 * n + host(from), 2 * n + host(from)};
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown sharing");
}

size_t LinkTable::resources() const {
  const auto n = static_cast<size_t>(ranks_);
  return 2 * n + (sharing_ == Sharing::kPairs ? n * n : 2 * n);
}

LinkTable LinkTable::Select(std::span<const int> members) const {
  LinkTable selected = *this;
  selected.ranks_ = static_cast<int>(members.size());
  selected.index_.clear();
  selected.host_of_rank_.clear();
  std::vector<int> hosts;  // renumbered in the order of their first rank
  for (const int member : members) {
    CHECK(0 <= member && member < ranks_);
    if (!index_.empty()) {
      for (const int to : members) selected.index_.push_back(index_[Pair(member, to)]);
    }
    if (host_of_rank_.empty()) continue;
    const int host = host_of_rank_[static_cast<size_t>(member)];
    const auto known = std::find(hosts.begin(), hosts.end(), host);
    selected.host_of_rank_.push_back(static_cast<int>(known - hosts.begin()));
    if (known == hosts.end()) hosts.push_back(host);
  }
  return selected;
}

ClusterCosts ClusterCosts::Select(std::span<const int> members) const {
  ClusterCosts selected;
  for (const int member : members) selected.devices.push_back(devices.at(static_cast<size_t>(member)));
  selected.links = links.Select(members);
  selected.start_s = start_s;
  selected.end_s = end_s;
  return selected;
}

}  // namespace runahead
