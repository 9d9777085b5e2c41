#include "plan/planner.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "plan/search.h"

namespace runahead {
namespace {

std::vector<int> CountsToTry(const PlanRequest& request) {
  const int most = static_cast<int>(std::min<int64_t>(request.ranks, request.tokens));
  if (!request.may_leave_out) return {most};
  constexpr int kEachUpTo = 8;
  std::vector<int> counts;
  for (int count = 1; count < most; count += count < kEachUpTo ? 1 : count) counts.push_back(count);
  counts.push_back(most);
  return counts;
}

std::vector<Scheme> SchemesToTry(const PlanRequest& request, int count) {
  if (count == 1) return {Scheme::kSingle};
  if (request.scheme) return {*request.scheme};
  if (count == 2) return {Scheme::kRunaheadDirect};  // the same rows travel, and sooner
  return {Scheme::kRunaheadChain, Scheme::kRunaheadDirect};
}

std::string Describe(const PhasePlan& best, const std::vector<PhasePlan>& fastest_of_count, int ranks) {
  std::string times;
  for (const PhasePlan& plan : fastest_of_count) {
    times += fmt::format("{}{}: {:.4g} ms", times.empty() ? "" : ", ", plan.members.size(), plan.predicted_s * 1e3);
  }
  std::string text = fmt::format("ranks used {} of {}", best.members.size(), ranks);
  const bool prefix = best.members.back() + 1 == static_cast<int>(best.members.size());
  if (!prefix) text += fmt::format(" (ranks {})", fmt::join(best.members, ","));
  return text + fmt::format(", predicted {}", times);
}

}  // namespace

std::vector<int> FastestRanks(const WorkShape& shape, const ClusterCosts& costs, int count, int64_t tokens) {
  std::vector<int> ranks(static_cast<size_t>(costs.ranks()));
  std::iota(ranks.begin(), ranks.end(), 0);
  const int64_t share = std::max<int64_t>(1, tokens / count);
  const auto pairs = static_cast<double>(CausalPairs(0, share, shape.window(0)));
  std::vector<double> seconds;  // [ranks], of a layer
  for (const DeviceCost& device : costs.devices) {
    const RowCost cost = device.At(share);
    seconds.push_back(cost.layer_s + cost.pair_s * pairs);
  }
  std::stable_sort(ranks.begin(), ranks.end(),
                   [&](int a, int b) { return seconds[static_cast<size_t>(a)] < seconds[static_cast<size_t>(b)]; });
  ranks.resize(static_cast<size_t>(count));
  std::sort(ranks.begin(), ranks.end());
  return ranks;
}

PhasePlan ChoosePlan(const WorkShape& shape, const CostsWhileActive& costs, const PlanRequest& request) {
  CHECK_GT(request.tokens, 0);
  CHECK_GT(request.ranks, 0);
  std::optional<PhasePlan> best;
  std::vector<PhasePlan> fastest_of_count;
  for (const int count : CountsToTry(request)) {
    const ClusterCosts& all = costs(count);
    CHECK_GE(all.ranks(), request.ranks);
    std::vector<int> members(static_cast<size_t>(count));
    std::iota(members.begin(), members.end(), 0);
    if (request.may_leave_out) members = FastestRanks(shape, all, count, request.tokens);
    const ClusterCosts used = all.Select(members);
    std::optional<PhasePlan> fastest;
    for (const Scheme scheme : SchemesToTry(request, count)) {
      const SearchResult found = SolvePartition(shape, used, scheme, request.tokens, /*most_events=*/0);
      if (fastest && !(found.cost < fastest->predicted_s)) continue;
      fastest = PhasePlan{members, scheme, found.partition, found.cost, ""};
    }
    fastest_of_count.push_back(*fastest);
    if (!best || fastest->predicted_s < best->predicted_s * (1 - kPlannerNoise)) best = fastest;
  }
  const auto events = static_cast<int64_t>(static_cast<double>(request.events_per_second) * best->predicted_s);
  const ClusterCosts used = costs(static_cast<int>(best->members.size())).Select(best->members);
  const SearchResult found = SolvePartition(shape, used, best->scheme, request.tokens, events);
  best->partition = found.partition;
  best->predicted_s = found.cost;
  best->reason = Describe(*best, fastest_of_count, request.ranks);
  return *best;
}

}  // namespace runahead
