// The predictions of `runahead plan`: every strategy on every number of ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "plan/cluster_costs.h"
#include "plan/counters.h"
#include "plan/partition.h"
#include "plan/scheme.h"
#include "plan/work_shape.h"
#include "runahead/options.h"

namespace runahead {

struct PlannedScheme {
  Scheme scheme = Scheme::kSingle;
  Partition partition;
  double ttft_s = 0;
  size_t busiest_bytes = 0;  // bytes of the link that carries most
};

/// One context on one number of ranks.
struct PlanRow {
  int64_t context = 0;
  std::vector<int> members;            // the devices, as many as ranks
  std::vector<std::string> left_out;   // names of devices that the best strategy is faster without
  std::vector<PlannedScheme> schemes;  // ordered as kSchemes; on one rank without those that need several
  size_t best = 0;                     // index into `schemes`
  double single_s = 0;                 // TTFT of the fastest device alone

  [[nodiscard]] double BestSeconds() const { return schemes[best].ttft_s; }
  [[nodiscard]] double SpeedUp() const { return single_s / BestSeconds(); }
  [[nodiscard]] double Efficiency() const { return SpeedUp() / static_cast<double>(members.size()); }
};

/// The counters of one strategy.
struct CountedScheme {
  int64_t context = 0;
  Scheme scheme = Scheme::kSingle;
  Partition partition;
  std::vector<RankCounters> ranks;
};

struct PlanTable {
  std::string cluster;
  std::string model;
  std::string dtype;
  WireFormat wire = WireFormat::kExact;  // how rows travel
  std::vector<PlanRow> rows;
  std::vector<CountedScheme> counters;  // empty unless asked for
};

/// 1 to 8, powers of two up to `ranks`, and `ranks`.
std::vector<int64_t> UsualCounts(int ranks);

/// A row for each context and count that has at most as many ranks as tokens. `encoded`: `costs` as rows in a wire
/// format find them; tensor parallelism, which moves none, takes `costs`. `on_row` is told the share of the work
/// done. Throws ConfigError when fractions are given for another number of ranks.
std::vector<PlanRow> FillPlanTable(const WorkShape& shape, const ClusterCosts& costs, const ClusterCosts& encoded,
                                   const std::vector<int64_t>& contexts, const std::vector<int64_t>& counts,
                                   const PartitionRequest& partition, const std::function<void(double)>& on_row);

/// Counters of each row's strategies.
std::vector<CountedScheme> CountAll(const WorkShape& shape, const std::vector<PlanRow>& rows);

}  // namespace runahead
