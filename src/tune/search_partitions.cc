#include "tune/search_partitions.h"

#include <algorithm>

#include "base/median.h"
#include "base/units.h"
#include "engine/engine_state.h"
#include "plan/search.h"
#include "tune/requests.h"

namespace runahead {
namespace {

/// TTFT of one request, in seconds.
double Once(Requests& requests, Scheme scheme, const Partition& partition) {
  const double ttft_ms = requests.PrefillUndisturbed(OptionsFor(TopologyOf(scheme), partition)).value.ttft_ms;
  requests.Decode();
  return ttft_ms / kMsPerSecond;
}

double MedianOfRuns(Requests& requests, Scheme scheme, const Partition& partition, int repeats) {
  std::vector<double> seconds;
  for (int repeat = 0; repeat < repeats; ++repeat) seconds.push_back(Once(requests, scheme, partition));
  return MedianOf(seconds);
}

/// Seconds that each rank computes in a run of `partition`.
std::vector<double> ComputeSeconds(Requests& requests, Topology topology, const Partition& partition) {
  PrefillOptions options = OptionsFor(topology, partition);
  options.record_timeline = true;
  std::vector<double> seconds(static_cast<size_t>(partition.ranks()));
  const PrefillReport report = requests.PrefillUndisturbed(options).value;
  for (const TimelineEvent& event : report.timeline) {
    if (event.activity != Activity::kCompute) continue;
    seconds[static_cast<size_t>(event.rank)] += (event.end_ms - event.begin_ms) / kMsPerSecond;
  }
  requests.Decode();
  return seconds;
}

/// The planner's partitions of `context` tokens: first by its costs, then by what the run before showed of the ranks.
std::vector<Partition> Solve(Requests& requests, const PhasePlanner& planner, Topology topology, int ranks,
                             int64_t context) {
  constexpr size_t kRounds = 3;
  const ClusterCosts known = planner.CostsOfFirst(ranks);
  const Scheme scheme = SchemeOf(Strategy::kRunahead, topology);
  const auto solve = [&](const ClusterCosts& costs) {
    return RoundCuts(SolvePartition(planner.shape(), costs, scheme, context).partition, planner.tile_rows());
  };
  std::vector<Partition> solved{solve(known)};
  (void)requests.Prefill(OptionsFor(topology, solved.front()));  // makes room
  while (solved.size() < kRounds) {
    const std::vector<double> compute_s = ComputeSeconds(requests, topology, solved.back());
    Partition next = solve(CostsAsMeasured(planner.shape(), known, scheme, solved.back(), compute_s));
    if (std::find(solved.begin(), solved.end(), next) != solved.end()) break;
    solved.push_back(std::move(next));
  }
  return solved;
}

/// Rounds in which finalists and single ranks are timed.
int Rounds(const SearchPlan& plan) { return 4 * plan.repeats + 1; }

/// Times the candidates in turn and returns the surely fastest one.
TableEntry Decide(Requests& requests, Scheme scheme, const std::vector<Partition>& candidates, int rounds) {
  std::vector<std::vector<double>> seconds(candidates.size());
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < candidates.size(); ++i) seconds[i].push_back(Once(requests, scheme, candidates[i]));
  }
  const size_t best = SurelyFastest(seconds);
  return {scheme, candidates[best], MedianOf(seconds[best])};
}

SearchReport SearchOne(Requests& requests, const PhasePlanner& planner, const SearchPlan& plan, Topology topology,
                       int ranks, int64_t context, const std::function<void(int)>& on_step) {
  const Scheme scheme = SchemeOf(Strategy::kRunahead, topology);
  const std::vector<Partition> solved = Solve(requests, planner, topology, ranks, context);
  std::vector<std::pair<double, Partition>> timed;
  GridSearchOptions options;
  const bool measured = planner.tuned().profile.has_value();  // costs: the starts are good already
  options.divisions = measured ? 64 : 16;
  options.coarse_grid = !measured;
  options.finest = std::max<int64_t>(1, context / plan.finest);
  options.most_evaluations = plan.most_evaluations;
  options.starts = solved;
  const auto objective = [&](const Partition& partition) {
    const double seconds = MedianOfRuns(requests, scheme, partition, plan.repeats);
    timed.emplace_back(seconds, partition);
    on_step(static_cast<int>(timed.size()));
    return seconds;
  };
  const SearchResult found = GridSearch(context, ranks, objective, options);
  std::stable_sort(timed.begin(), timed.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Partition> finalists{solved.front()};
  for (const auto& [seconds, partition] : timed) {
    if (finalists.size() > static_cast<size_t>(plan.finalists)) break;
    if (!(partition == solved.front())) finalists.push_back(partition);
  }
  return {Decide(requests, scheme, finalists, Rounds(plan)), solved.front(), found.evaluations};
}

}  // namespace

std::vector<SearchReport> SearchPartitions(const Engine& engine, const DecoderSpec& spec, const SearchPlan& plan,
                                           const std::function<void(int64_t, int)>& on_step) {
  const PhasePlanner planner = StateOf(engine)->Hold().planner();
  std::vector<SearchReport> reports;
  for (const int64_t context : plan.contexts) {
    Requests requests(engine, spec, context, plan.decoded_tokens, plan.seed);
    const Partition whole = EvenPartition(context, 1);
    (void)Once(requests, Scheme::kSingle, whole);  // makes room and plans
    const double single_s = MedianOfRuns(requests, Scheme::kSingle, whole, Rounds(plan));
    const TableEntry single{Scheme::kSingle, whole, single_s};
    reports.push_back({single, whole, 1});
    for (const int64_t count : plan.ranks) {
      if (count < 2 || count > context) continue;
      for (const Topology topology : plan.topologies) {
        reports.push_back(SearchOne(requests, planner, plan, topology, static_cast<int>(count), context,
                                    [&](int timed) { on_step(context, timed); }));
      }
    }
  }
  return reports;
}

}  // namespace runahead
