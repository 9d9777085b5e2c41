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
  // Two FLOPs for each weight and row; `flops` is of one row.
  const auto seconds_of = [&](double flops, double rows, double weight_bytes) {
    const double reading = rates.memory_bytes_per_s > 0 ? flops / 2 * weight_bytes / rates.memory_bytes_per_s : 0;
    return std::max(rows * flops / rates.flops, reading);
  };
  const auto seconds = [&](double flops, double rows) { return seconds_of(flops, rows, shape.WeightBytes()); };
  const double before = shape.KeyValueFlops() + 2 * static_cast<double>(shape.hidden * shape.q_features());
  const double pair_s = shape.PairFlops() / rates.attention_flops;
  const double row_bytes_s =
      rates.memory_bytes_per_s > 0 ? static_cast<double>(shape.RowBytes()) / rates.memory_bytes_per_s : 0;
  // Several rows meet other experts than one does.
  const auto layer_seconds = [&](double rows) {
    const double flops = shape.MeanLinearFlops();
    return std::max(seconds(flops, rows), seconds(flops * std::min(rows, shape.WeightsOverActive()), 0));
  };
  // From here on arithmetic takes longer than reading.
  const double arithmetic =
      rates.memory_bytes_per_s > 0 ? shape.WeightBytes() / 2 * rates.flops / rates.memory_bytes_per_s : 1;
  const double corner = arithmetic * shape.WeightsOverActive();
  const auto first = std::max<int64_t>(2, static_cast<int64_t>(std::ceil(corner)));

  DeviceCost cost;
  cost.name = rates.name;
  for (const int64_t rows : {int64_t{1}, first, 2 * first}) {
    const auto n = static_cast<double>(rows);
    cost.knots.push_back(
        {rows, seconds(before, n) + rates.layer_overhead_s / 2, layer_seconds(n) + rates.layer_overhead_s, pair_s});
  }
  cost.finish_s = seconds(shape.OtherLinearFlops(shape.layers - 1), 1) +
                  seconds_of(shape.HeadFlops(), 1, shape.HeadWeightBytes()) + rates.layer_overhead_s;
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
  own_hosts_ = true;
  for (int rank = 0; rank < ranks_; ++rank) own_hosts_ = own_hosts_ && HostOf(rank) == rank;
  host_end_.assign(host_of_rank_.size(), ranks_);
  for (int rank = ranks_ - 2; rank >= 0; --rank) {
    const auto i = static_cast<size_t>(rank);
    host_end_[i] = host_of_rank_[i] == host_of_rank_[i + 1] ? host_end_[i + 1] : rank + 1;
  }
}

bool LinkTable::AnyThread() const {
  return std::any_of(costs_.begin(), costs_.end(), [](const LinkCost& cost) { return cost.mover == Mover::kThread; });
}

std::array<size_t, 2> LinkTable::ResourcesOf(int from, int to) const {
  const auto n = static_cast<size_t>(ranks_);
  const auto host_from = static_cast<size_t>(HostOf(from));
  const auto host_to = static_cast<size_t>(HostOf(to));
  if (host_from != host_to) return {host_from, n + host_to};
  switch (sharing_) {
    case Sharing::kPairs: {
      const size_t pair = 2 * n + Pair(from, to);
      return {pair, pair};
    }
    case Sharing::kPorts:
      return {2 * n + static_cast<size_t>(from), 3 * n + static_cast<size_t>(to)};
    case Sharing::kBus:
      return {2 * n + host_from, 2 * n + host_from};
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown sharing");
}

size_t LinkTable::resources() const {
  const auto n = static_cast<size_t>(ranks_);
  return 2 * n + (sharing_ == Sharing::kPairs && !own_hosts_ ? n * n : 2 * n);
}

LinkRun LinkTable::RunFrom(int from, int to, int end) const {
  const auto [first, second] = ResourcesOf(from, to);
  LinkRun run{end, &Between(from, to), first, second};
  const bool inside = HostOf(from) == HostOf(to);
  if (inside) {
    run.first_step = sharing_ == Sharing::kPairs ? 1 : 0;
    run.second_step = sharing_ == Sharing::kBus ? 0 : 1;
  } else if (own_hosts_) {
    run.second_step = 1;
  } else {
    run.hosts = &host_of_rank_[static_cast<size_t>(to)];
    run.second_of_host_0 = static_cast<size_t>(ranks_);
  }
  if (!host_of_rank_.empty() && !own_hosts_) {
    const int own = HostOf(from);
    int alike = host_end_[static_cast<size_t>(to)];
    while (!inside && alike < run.end && HostOf(alike) != own) alike = host_end_[static_cast<size_t>(alike)];
    run.end = std::min(run.end, alike);
  }
  if (!index_.empty()) {
    const uint32_t* const row = index_.data() + Pair(from, 0);
    int alike = to + 1;
    while (alike < run.end && row[alike] == row[to]) ++alike;
    run.end = alike;
  }
  return run;
}

LinkTable LinkTable::Select(std::span<const int> members) const {
  LinkTable selected = *this;
  selected.ranks_ = static_cast<int>(members.size());
  selected.index_.clear();
  std::vector<int> host_of_rank;
  std::vector<int> new_number(host_of_rank_.size(), -1);  // number of each host, in the order of their first ranks
  int hosts = 0;
  for (const int member : members) {
    CHECK(0 <= member && member < ranks_);
    if (!index_.empty()) {
      for (const int to : members) selected.index_.push_back(index_[Pair(member, to)]);
    }
    if (host_of_rank_.empty()) continue;
    int& host = new_number[static_cast<size_t>(HostOf(member))];
    if (host < 0) host = hosts++;
    host_of_rank.push_back(host);
  }
  if (!host_of_rank_.empty()) selected.SetHosts(std::move(host_of_rank));
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
