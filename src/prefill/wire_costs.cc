#include "prefill/wire_costs.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "codec/row_codec.h"
#include "plan/simulator.h"

namespace runahead {
namespace {

/// Seconds of one number of a row, half of them keys, to encode and decode it: codec_bench on one core.
constexpr std::array<double, 4> kCodingSeconds{0, 0.9e-9, 1.15e-9, 1.26e-9};  // [formats]

/// The links over which rows travel in `plan`, as (from, to).
std::vector<std::pair<int, int>> LinksOf(const PhasePlan& plan) {
  std::vector<std::pair<int, int>> links;
  const auto ranks = static_cast<int>(plan.members.size());
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) {
      const bool chain = plan.scheme == Scheme::kRunaheadChain;
      const bool direct = plan.scheme == Scheme::kRunaheadDirect;
      if (chain ? to == from + 1 : direct ? to > from : to != from) links.emplace_back(from, to);
    }
  }
  return links;
}

}  // namespace

double WireShare(WireFormat format, const WorkShape& shape) {
  if (format == WireFormat::kExact) return 1;
  const DType dtype = shape.element_bytes == SizeOf(DType::kF32) ? DType::kF32 : DType::kBF16;
  const int64_t heads = shape.latent ? 1 : 2 * shape.kv_heads;
  const int64_t features = shape.latent ? shape.latent->row : shape.head_dim;
  const RowCodec codec(format, RowKind::kValues, heads, features, dtype);
  const int64_t behind = RowCodec::kExactRows;
  return static_cast<double>(codec.Bytes(behind, behind + 1)) / static_cast<double>(shape.RowBytes());
}

LinkCost Carrying(const LinkCost& link, WireFormat format, const WorkShape& shape, int threads) {
  if (format == WireFormat::kExact || link.bytes_per_s <= 0) return link;
  LinkCost carrying = link;
  const double coding_s =
      kCodingSeconds[static_cast<size_t>(format)] / static_cast<double>(shape.element_bytes) / threads;
  carrying.bytes_per_s = 1 / (WireShare(format, shape) / link.bytes_per_s + coding_s);
  return carrying;
}

ClusterCosts WithWire(const ClusterCosts& costs, WireFormat format, const WorkShape& shape, int threads) {
  if (format == WireFormat::kExact) return costs;
  ClusterCosts encoded = costs;
  for (int from = 0; from < costs.ranks(); ++from) {
    for (int to = 0; to < costs.ranks(); ++to) {
      if (from != to) encoded.links.Set(from, to, Carrying(costs.links.Between(from, to), format, shape, threads));
    }
  }
  return encoded;
}

std::vector<WireFormat> FormatOfEachLink(const WorkShape& shape, const ClusterCosts& exact,
                                         const ClusterCosts& encoded, const PhasePlan& plan) {
  constexpr double kNoLonger = 1.005;
  const size_t ranks = plan.members.size();
  std::vector<WireFormat> wire(ranks * ranks, WireFormat::kExact);
  ClusterCosts costs = encoded;
  const double limit = kNoLonger * Simulate(shape, encoded, plan.scheme, plan.partition).ttft_s;
  for (const auto& [from, to] : LinksOf(plan)) {
    costs.links.Set(from, to, exact.links.Between(from, to));
    if (Simulate(shape, costs, plan.scheme, plan.partition).ttft_s <= limit) continue;
    costs.links.Set(from, to, encoded.links.Between(from, to));
    wire[static_cast<size_t>(from) * ranks + static_cast<size_t>(to)] = kAutoFormat;
  }
  return wire;
}

std::string WireText(const std::vector<WireFormat>& wire, const PhasePlan& plan) {
  const std::vector<std::pair<int, int>> links = LinksOf(plan);
  const size_t ranks = plan.members.size();
  size_t encoded = 0;
  WireFormat format = WireFormat::kExact;
  for (const auto& [from, to] : links) {
    const WireFormat own = wire[static_cast<size_t>(from) * ranks + static_cast<size_t>(to)];
    if (own == WireFormat::kExact) continue;
    ++encoded;
    format = own;
  }
  if (encoded == links.size()) return std::string(Name(format));
  return fmt::format("{} on {} of {} links", Name(format), encoded, links.size());
}

}  // namespace runahead
