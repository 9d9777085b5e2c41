#include "engine/planner_forecast.h"

#include <algorithm>

#include "plan/behind_prefix.h"
#include "plan/prompt_flops.h"
#include "plan/search.h"
#include "runahead/error.h"

namespace runahead {

std::vector<WireFormat> PlannerForecast::WireBetweenRanks(const PhasePlan& plan) const {
  if (plan.wire.empty()) return {};
  const auto ranks = static_cast<size_t>(planner_.key().ranks());
  const WireFormat usual = *std::max_element(plan.wire.begin(), plan.wire.end());
  std::vector<WireFormat> wire(ranks * ranks, usual);  // also of links that another order of the members uses
  for (size_t i = 0; i < plan.members.size(); ++i) {
    for (size_t j = i + 1; j < plan.members.size(); ++j) {
      const auto from = static_cast<size_t>(plan.members[i]);
      const auto to = static_cast<size_t>(plan.members[j]);
      wire[from * ranks + to] = plan.wire[i * plan.members.size() + j];
    }
  }
  return wire;
}

GangChoice PlannerForecast::Choose(int64_t tokens, const PrefillOptions& options) {
  GangChoice choice;
  choice.asked_for = options.partition.kind != PartitionKind::kAuto || options.ranks > 1 || options.topology ||
                     options.strategy == Strategy::kTspDense || options.strategy == Strategy::kTspCausal;
  const PhasePlan& plan = planner_.PlanFor(tokens, options);
  choice.members = plan.members;
  choice.strategy = plan.members.size() > 1 ? options.strategy : Strategy::kSingle;
  choice.topology = TopologyOf(plan.scheme);
  choice.predicted_s = plan.predicted_s;
  choice.wire = WireBetweenRanks(plan);
  return choice;
}

std::vector<int64_t> PlannerForecast::Cuts(const GangChoice& choice, const PrefillOptions& options, int64_t begin,
                                           int64_t end) {
  const int64_t rows = end - begin;
  const auto ranks = static_cast<int>(choice.members.size());
  if (choice.strategy != Strategy::kRunahead || options.partition.kind == PartitionKind::kEven) {
    return EvenPartition(rows, ranks).Behind(begin).cuts();
  }
  if (options.partition.kind == PartitionKind::kManual && std::ssize(options.partition.fractions) == ranks) {
    return FractionPartition(rows, options.partition.fractions).Behind(begin).cuts();
  }
  if (begin == 0) {  // as a whole prompt of this length is cut, where it is cut for as many ranks
    try {
      const PhasePlan& plan = planner_.PlanFor(rows, options);
      if (plan.members.size() == choice.members.size()) return plan.partition.cuts();
    } catch (const ConfigError&) {  // a round's length need not have been searched
    }
  }
  const ClusterCosts costs = planner_.CostsWhile(ranks).Select(choice.members);
  const Scheme scheme = SchemeOf(Strategy::kRunahead, choice.topology);
  return RoundCuts(BalancedCompute(planner_.shape(), costs, scheme, rows, begin), planner_.tile_rows()).cuts();
}

double PlannerForecast::Seconds(const GangChoice& choice, const PrefillOptions& options,
                                std::span<const int64_t> held, int64_t begin, int64_t end) {
  if (!planner_.tuned().profile) return 0;
  const Partition partition(Cuts(choice, options, begin, end));
  if (partition.ranks() != std::ssize(held)) return 0;  // too few tokens for so many
  const Scheme scheme = partition.ranks() == 1 ? Scheme::kSingle : SchemeOf(choice.strategy, choice.topology);
  const ClusterCosts costs = planner_.CostsWhile(partition.ranks()).Select(choice.members);
  return SecondsBehindPrefix(planner_.shape(), costs, scheme, partition, held);
}

double PlannerForecast::Work(int64_t begin, int64_t end) const { return PromptFlops(planner_.shape(), begin, end); }

}  // namespace runahead
