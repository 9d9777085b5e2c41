// What plans know of the formats in which rows travel.
#pragma once

#include <optional>
#include <vector>

#include "plan/cluster_costs.h"
#include "plan/planner.h"
#include "plan/work_shape.h"
#include "runahead/options.h"

namespace runahead {

/// How rows may travel, and with how many threads each rank encodes and decodes them.
struct WireOptions {
  std::optional<WireFormat> format = WireFormat::kExact;  // nothing: each link exact or kAutoFormat, what is faster
  int threads = 1;
};

/// What links take that are better not exact: an error that no answer of the tested models shows.
inline constexpr WireFormat kAutoFormat = WireFormat::kInt8;

/// Bytes that travel for each byte of rows of a model; the exact first positions are left out.
double WireShare(WireFormat format, const WorkShape& shape);

/// A link that carries rows in `format`: faster by its share, slower by the time to encode and decode with `threads`,
/// at rates that one core with wide vectors reaches.
LinkCost Carrying(const LinkCost& link, WireFormat format, const WorkShape& shape, int threads);

/// `costs` when all links carry rows in `format`.
ClusterCosts WithWire(const ClusterCosts& costs, WireFormat format, const WorkShape& shape, int threads);

/// The formats [members][members] of a plan whose links would all better be kAutoFormat: those stay exact whose rows
/// are waited for so little that the prompt takes no longer. `exact`, `encoded`: costs of the members either way.
std::vector<WireFormat> FormatOfEachLink(const WorkShape& shape, const ClusterCosts& exact,
                                         const ClusterCosts& encoded, const PhasePlan& plan);

/// "int8", or with different links "int8 on 1 of 3 links".
std::string WireText(const std::vector<WireFormat>& wire, const PhasePlan& plan);

}  // namespace runahead
