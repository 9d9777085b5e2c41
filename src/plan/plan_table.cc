#include "plan/plan_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <future>

#include "plan/planner.h"
#include "plan/search.h"
#include "plan/simulator.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr int kEveryCountUpTo = 8;
constexpr int kRanksWorthAThread = 256;     // ranks from which on each scheme is planned on a thread
constexpr int64_t kMostEvents = 5'000'000;  // simulated in the search of one partition

/// The partition that was asked for, and its simulation where it is known already.
SolvedPartition PartitionOf(const PartitionRequest& request, const WorkShape& shape, const ClusterCosts& costs,
                            Scheme scheme, int64_t tokens) {
  const auto given = [](Partition partition) { return SolvedPartition{{std::move(partition), 0, 0}, std::nullopt}; };
  switch (request.kind) {
    case PartitionKind::kManual:
      if (request.fractions.size() != static_cast<size_t>(costs.ranks())) {
        throw ConfigError(fmt::format("partition: expected {} fractions, one for each rank, got {}", costs.ranks(),
                                      request.fractions.size()));
      }
      return given(IsRunahead(scheme) ? FractionPartition(tokens, request.fractions)
                                      : EvenPartition(tokens, costs.ranks()));
    case PartitionKind::kEven:
      return given(EvenPartition(tokens, costs.ranks()));
    case PartitionKind::kAuto:
      if (!IsRunahead(scheme) || costs.ranks() == 1) return given(EvenPartition(tokens, costs.ranks()));
      break;
    case PartitionKind::kSearched:
    case PartitionKind::kPredicted:
      throw ConfigError("partition: a described cluster has no table of searched partitions; use auto");
  }
  return SolvePartition(shape, costs, scheme, tokens, kMostEvents);
}

PlannedScheme PlanScheme(const WorkShape& shape, const ClusterCosts& used, Scheme scheme, int64_t context,
                         const PartitionRequest& partition) {
  SolvedPartition solved =
      PartitionOf(used.ranks() == 1 ? PartitionRequest{} : partition, shape, used, scheme, context);
  if (!solved.simulation) solved.simulation = Simulate(shape, used, scheme, solved.partition);
  return {scheme, solved.partition, solved.simulation->ttft_s, solved.simulation->busiest_bytes};
}

PlanRow MakeRow(const WorkShape& shape, const ClusterCosts& costs, const ClusterCosts& encoded, int64_t context,
                int count, const PartitionRequest& partition) {
  PlanRow row;
  row.context = context;
  row.members = FastestRanks(shape, costs, count, context);
  const ClusterCosts used = costs.Select(row.members);
  const ClusterCosts used_encoded = encoded.Select(row.members);
  // Each scheme by itself: on thousands of ranks one takes a second.
  std::vector<std::future<PlannedScheme>> planned;
  for (const Scheme scheme : kSchemes) {
    if ((scheme == Scheme::kSingle) != (count == 1)) continue;
    const auto launch =
        count < kRanksWorthAThread ? std::launch::deferred : std::launch::async | std::launch::deferred;
    const ClusterCosts& of_scheme = scheme == Scheme::kTensorParallel ? used : used_encoded;
    planned.push_back(
        std::async(launch, PlanScheme, std::cref(shape), std::cref(of_scheme), scheme, context, partition));
  }
  for (std::future<PlannedScheme>& of_scheme : planned) {
    row.schemes.push_back(of_scheme.get());
    if (row.schemes.back().ttft_s < row.schemes[row.best].ttft_s) row.best = row.schemes.size() - 1;
  }
  const std::vector<int> fastest = FastestRanks(shape, costs, 1, context);
  row.single_s = Simulate(shape, costs.Select(fastest), Scheme::kSingle, EvenPartition(context, 1)).ttft_s;
  return row;
}

/// Names what `row` has and the fastest row of fewer ranks does without.
void NameLeftOut(const ClusterCosts& costs, const std::vector<PlanRow>& rows, PlanRow& row) {
  const PlanRow* faster = nullptr;
  for (const PlanRow& other : rows) {
    const bool smaller = other.context == row.context && other.members.size() < row.members.size();
    if (smaller && other.BestSeconds() <= row.BestSeconds() &&
        (faster == nullptr || other.BestSeconds() < faster->BestSeconds())) {
      faster = &other;
    }
  }
  if (faster == nullptr) return;
  for (const int member : row.members) {
    if (std::find(faster->members.begin(), faster->members.end(), member) != faster->members.end()) continue;
    row.left_out.push_back(fmt::format("{} ({})", member, costs.devices[static_cast<size_t>(member)].name));
  }
}

}  // namespace

std::vector<int64_t> UsualCounts(int ranks) {
  std::vector<int64_t> counts;
  for (int64_t count = 1; count < ranks; count += count < kEveryCountUpTo ? 1 : count) counts.push_back(count);
  counts.push_back(ranks);
  return counts;
}

std::vector<PlanRow> FillPlanTable(const WorkShape& shape, const ClusterCosts& costs, const ClusterCosts& encoded,
                                   const std::vector<int64_t>& contexts, const std::vector<int64_t>& counts,
                                   const PartitionRequest& partition, const std::function<void(double)>& on_row) {
  std::vector<PlanRow> rows;
  double done = 0;
  for (const int64_t context : contexts) {
    for (const int64_t count : counts) {
      if (count <= context) {
        PlanRow row = MakeRow(shape, costs, encoded, context, static_cast<int>(count), partition);
        NameLeftOut(costs, rows, row);
        rows.push_back(std::move(row));
      }
      on_row(++done / static_cast<double>(contexts.size() * counts.size()));
    }
  }
  if (rows.empty()) throw ConfigError("ranks: there are more ranks than tokens in every context");
  return rows;
}

std::vector<CountedScheme> CountAll(const WorkShape& shape, const std::vector<PlanRow>& rows) {
  std::vector<CountedScheme> all;
  for (const PlanRow& row : rows) {
    for (const PlannedScheme& planned : row.schemes) {
      all.push_back(
          {row.context, planned.scheme, planned.partition, CountWork(shape, planned.scheme, planned.partition)});
    }
  }
  return all;
}

}  // namespace runahead
