// Chooses the ranks, the topology and the cuts of a prompt.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "plan/cluster_costs.h"
#include "plan/partition.h"
#include "plan/scheme.h"
#include "plan/work_shape.h"
#include "runahead/options.h"

namespace runahead {

/// How a prompt will be prefilled.
struct PhasePlan {
  std::vector<int> members;  // the ranks that take part, in the order of their chunks
  Scheme scheme = Scheme::kSingle;
  Partition partition;
  double predicted_s = 0;          // predicted TTFT, s; 0: not known
  std::string reason;              // the reason, one line
  std::vector<WireFormat> wire{};  // [members][members], from one to another; empty: all rows travel exact
};

/// Costs of all ranks while `active` of them work at once and slow each other down.
using CostsWhileActive = std::function<const ClusterCosts&(int active)>;

struct PlanRequest {
  int64_t tokens = 0;
  int ranks = 0;                 // ranks of the cluster
  bool may_leave_out = true;     // true: leave out ranks that do not help; false: all of `ranks` work
  std::optional<Scheme> scheme;  // scheme of several ranks; empty: the better of chain and direct
  // Most simulated events for each second of the phase, spent on better cuts for the winner. At some ten million
  // events a second, planning stays below a hundredth of the phase.
  int64_t events_per_second = 50'000;
};

/// Share by which further ranks must make a plan faster: predictions differ by as much for no reason.
inline constexpr double kPlannerNoise = 0.05;

/// The `count` ranks that take the least time over an equal share of `tokens`, in their own order.
std::vector<int> FastestRanks(const WorkShape& shape, const ClusterCosts& costs, int count, int64_t tokens);

/// The fastest of: one rank, the two fastest, and so on to all of them (in steps of two beyond eight), in chains and
/// direct, each with balanced cuts; the winner's are then searched around. Deterministic. With fewer tokens than
/// ranks, fewer ranks are used.
PhasePlan ChoosePlan(const WorkShape& shape, const CostsWhileActive& costs, const PlanRequest& request);

}  // namespace runahead
