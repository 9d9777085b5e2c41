#include "schedule/cost_forecast.h"

#include <algorithm>
#include <numeric>

#include "plan/behind_prefix.h"
#include "plan/planner.h"
#include "plan/prompt_flops.h"
#include "plan/search.h"
#include "plan/simulator.h"

namespace runahead {
namespace {

constexpr int64_t kPlayedEachTime = 32;  // members up to which each question is simulated
constexpr int64_t kExact = 16;           // lengths up to this one have a plan of their own
constexpr int64_t kRowsForARank = 64;    // rows of a prompt for each rank that is tried

/// `tokens` with three significant binary digits, rounded up.
int64_t Rounded(int64_t tokens) {
  int64_t step = 1;
  while (tokens / step > kExact / 2) step *= 2;
  return (tokens + step - 1) / step * step;
}

bool Alike(const DeviceCost& a, const DeviceCost& b) {
  const auto same = [](const RowCost& x, const RowCost& y) {
    return x.rows == y.rows && x.before_s == y.before_s && x.layer_s == y.layer_s && x.pair_s == y.pair_s;
  };
  return a.finish_s == b.finish_s && std::equal(a.knots.begin(), a.knots.end(), b.knots.begin(), b.knots.end(), same);
}

}  // namespace

CostForecast::CostForecast(const WorkShape& shape, const ClusterCosts& costs)
    : shape_(shape), costs_(costs), selected_(costs) {
  for (const DeviceCost& device : costs.devices) alike_ = alike_ && Alike(device, costs.devices.front());
  for (const int64_t window : shape.windows) windowed_ = windowed_ || window > 0;
}

GangChoice CostForecast::Choose(int64_t tokens, const PrefillOptions& options) {
  const int topology = options.topology ? static_cast<int>(*options.topology) : -1;
  const Question question{Rounded(tokens), options.strategy, options.ranks, topology};
  auto known = choices_.find(question);
  if (known == choices_.end()) known = choices_.emplace(question, Make(Rounded(tokens), options)).first;
  GangChoice choice = known->second;
  choice.predicted_s *= Work(0, tokens) / Work(0, Rounded(tokens));
  return choice;
}

GangChoice CostForecast::Make(int64_t tokens, const PrefillOptions& options) const {
  GangChoice choice;
  choice.asked_for = options.ranks > 1 || options.topology.has_value();
  choice.strategy = options.strategy;
  const bool free = options.ranks == 0;  // to leave ranks out
  const auto most = static_cast<int>(std::min<int64_t>(free ? costs_.ranks() : options.ranks, tokens));
  if (options.strategy == Strategy::kRunahead && most > 1) {
    PlanRequest request;
    request.tokens = tokens;
    request.ranks = free ? static_cast<int>(std::clamp<int64_t>(tokens / kRowsForARank, 1, most)) : most;
    request.may_leave_out = free;
    if (options.topology) request.scheme = SchemeOf(Strategy::kRunahead, *options.topology);
    const PhasePlan plan = ChoosePlan(
        shape_, [&](int) -> const ClusterCosts& { return costs_; }, request);
    choice.members = plan.members;
    choice.topology = TopologyOf(plan.scheme);
    choice.predicted_s = plan.predicted_s;
  } else {
    choice.members.resize(options.strategy == Strategy::kSingle ? 1 : static_cast<size_t>(most));
    std::iota(choice.members.begin(), choice.members.end(), 0);
    const auto ranks = static_cast<int>(choice.members.size());
    const Scheme scheme = ranks == 1 ? Scheme::kSingle : SchemeOf(choice.strategy, choice.topology);
    choice.predicted_s = Simulate(shape_, costs_.Select(choice.members), scheme, EvenPartition(tokens, ranks)).ttft_s;
  }
  if (choice.members.size() == 1) choice.strategy = Strategy::kSingle;
  return choice;
}

std::vector<int64_t> CostForecast::Cuts(const GangChoice& choice, const PrefillOptions& options, int64_t begin,
                                        int64_t end) {
  const auto ranks = static_cast<int>(choice.members.size());
  if (choice.strategy != Strategy::kRunahead || options.partition.kind == PartitionKind::kEven) {
    return EvenPartition(end - begin, ranks).Behind(begin).cuts();
  }
  const Scheme scheme = SchemeOf(Strategy::kRunahead, choice.topology);
  return BalancedCompute(shape_, selected_.Of(choice.members), scheme, end - begin, begin).cuts();
}

double CostForecast::Seconds(const GangChoice& choice, const PrefillOptions& options, std::span<const int64_t> held,
                             int64_t begin, int64_t end) {
  const auto ranks = std::ssize(held);
  if (end - begin < ranks) return 0;
  const ClusterCosts& used = selected_.Of(choice.members);
  if (ranks > kPlayedEachTime) {  // from the plan of a prompt of about this length
    PrefillOptions over = options;
    over.ranks = static_cast<int>(ranks);
    const double all_s = Choose(end, over).predicted_s;
    return SecondsWithPrefix(shape_, all_s * Work(begin, end) / Work(0, end),
                             PrefixSeconds(shape_, used, begin, held));
  }
  const Partition partition(Cuts(choice, options, begin, end));
  if (partition.ranks() != ranks) return 0;
  const Scheme scheme = ranks == 1 ? Scheme::kSingle : SchemeOf(choice.strategy, choice.topology);
  return SecondsBehindPrefix(shape_, selected_.Of(choice.members), scheme, partition, held);
}

double CostForecast::Work(int64_t begin, int64_t end) const { return PromptFlops(shape_, begin, end); }

}  // namespace runahead
