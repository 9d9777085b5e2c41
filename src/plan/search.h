// Searches for the partition of the lowest cost, measured or simulated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "plan/cluster_costs.h"
#include "plan/partition.h"
#include "plan/scheme.h"
#include "plan/simulator.h"
#include "plan/work_shape.h"

namespace runahead {

/// What a partition costs; lower is better.
using Objective = std::function<double(const Partition&)>;

struct GridSearchOptions {
  int divisions = 8;              // the first step is the prompt divided by this
  bool coarse_grid = true;        // true: first try all cuts on multiples of that step, or of a larger one
  int64_t finest = 1;             // step of the last level, tokens
  int most_evaluations = 400;     // most evaluations of the objective
  int descents = 1;               // descents, each from one of the best points so far
  std::vector<Partition> starts;  // partitions tried first, besides even chunks
};

struct SearchResult {
  Partition partition;
  double cost = 0;
  int evaluations = 0;
};

/// KVR-S, the hierarchical grid search of KV-Runahead (section 4). A coarse grid over the cut points takes at most
/// half of the evaluations, with larger steps if need be. Finer and finer grids follow around the best so far; each
/// level goes on as long as it gets better. A grid with too many points (many ranks) is searched along its axes: each
/// cut alone, and each together with all behind it. Without a coarse grid the first level goes around the best start.
/// Uses min(ranks, tokens) ranks, as the starts must. Deterministic for a deterministic objective.
SearchResult GridSearch(int64_t tokens, int ranks, const Objective& objective, const GridSearchOptions& options = {});

/// `costs` corrected by a run of `partition`: each rank's costs times its measured compute time, compute_s [ranks] in
/// seconds, over the simulated one. Solving them balances all ranks after one run, where a search tries each cut.
ClusterCosts CostsAsMeasured(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme,
                             const Partition& partition, std::span<const double> compute_s);

/// Index of the candidate to take after rounds in which each was timed once. It is the first, unless others were
/// faster in three quarters of the rounds; then it is the one of those with the lowest median. So chance seldom
/// replaces a good first candidate, and a steady gain does, however small. seconds: [candidates][rounds].
size_t SurelyFastest(std::span<const std::vector<double>> seconds);

/// The chunks whose compute takes equally long on their devices, transfers left out: a direct solve, no search. The
/// prompt's `tokens` come behind `origin` more, whose rows are there.
Partition BalancedCompute(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme, int64_t tokens,
                          int64_t origin = 0);

struct SolvedPartition : SearchResult {
  std::optional<Simulation> simulation;  // of the partition, where no other was tried
};

/// The best partition for `scheme` on all ranks of `costs`: the direct solve, improved by the grid search on the
/// simulator while simulating stays below `most_events` events. Schemes whose chunks are not free get even ones.
SolvedPartition SolvePartition(const WorkShape& shape, const ClusterCosts& costs, Scheme scheme, int64_t tokens,
                               int64_t most_events = 2'000'000);

}  // namespace runahead
