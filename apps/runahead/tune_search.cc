#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "engine/engine_state.h"
#include "matmul_ceiling.h"
#include "plan/search.h"
#include "report/table.h"
#include "report/units.h"
#include "requests.h"
#include "tune.h"

namespace runahead::cli {
namespace {

constexpr double kMsPerSecond = 1000;

/// TTFT of one request, in seconds.
double Once(Requests& requests, Scheme scheme, const Partition& partition) {
  const Topology topology = scheme == Scheme::kRunaheadDirect ? Topology::kDirect : Topology::kChain;
  const double ttft_ms = requests.TtftMs(OptionsFor(topology, partition)).value;
  requests.Decode();
  return ttft_ms / kMsPerSecond;
}

double MedianOfRuns(Requests& requests, Scheme scheme, const Partition& partition, int repeats) {
  std::vector<double> seconds;
  for (int repeat = 0; repeat < repeats; ++repeat) seconds.push_back(Once(requests, scheme, partition));
  return MedianOf(seconds);
}

/// Times the candidates in turn and returns the surely fastest one.
TableEntry Decide(Requests& requests, Scheme scheme, const std::vector<Partition>& candidates, int rounds) {
  std::vector<std::vector<double>> seconds(candidates.size());
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < candidates.size(); ++i) seconds[i].push_back(Once(requests, scheme, candidates[i]));
  }
  const size_t best = SurelyFastest(seconds);
  return {scheme, candidates[best], MedianOf(seconds[best])};
}

}  // namespace

std::vector<SearchReport> SearchPartitions(const Engine& engine, const DecoderSpec& spec, const SearchPlan& plan,
                                           const std::function<void(int64_t, int)>& on_step) {
  const PhasePlanner& planner = engine.state()->planner();
  std::vector<SearchReport> reports;
  for (const int64_t context : plan.contexts) {
    Requests requests(engine, spec, context, plan.decoded_tokens, plan.seed);
    const Partition whole = EvenPartition(context, 1);
    (void)Once(requests, Scheme::kSingle, whole);  // makes room and plans
    const int rounds = 4 * plan.repeats + 1;
    reports.push_back({{Scheme::kSingle, whole, MedianOfRuns(requests, Scheme::kSingle, whole, rounds)}, whole, 1});
    for (const int64_t count : plan.ranks) {
      if (count < 2 || count > context) continue;
      for (const Topology topology : plan.topologies) {
        const Scheme scheme = SchemeOf(Strategy::kRunahead, topology);
        std::vector<int> members(static_cast<size_t>(count));
        std::iota(members.begin(), members.end(), 0);
        const ClusterCosts costs = planner.CostsWhile(static_cast<int>(count)).Select(members);
        const Partition solved = SolvePartition(planner.shape(), costs, scheme, context).partition;
        (void)Once(requests, scheme, solved);
        std::vector<std::pair<double, Partition>> timed;
        GridSearchOptions options;
        options.divisions = 16;  // the start is good already
        options.finest = std::max<int64_t>(1, context / plan.finest);
        options.most_evaluations = plan.most_evaluations;
        options.start = solved;
        const auto objective = [&](const Partition& partition) {
          const double seconds = MedianOfRuns(requests, scheme, partition, plan.repeats);
          timed.emplace_back(seconds, partition);
          on_step(context, static_cast<int>(timed.size()));
          return seconds;
        };
        const SearchResult found = GridSearch(context, static_cast<int>(count), objective, options);
        std::stable_sort(timed.begin(), timed.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
        std::vector<Partition> finalists{solved};
        for (const auto& [seconds, partition] : timed) {
          if (finalists.size() > static_cast<size_t>(plan.finalists)) break;
          if (!(partition == solved)) finalists.push_back(partition);
        }
        reports.push_back({Decide(requests, scheme, finalists, rounds), solved, found.evaluations});
      }
    }
  }
  return reports;
}

std::string ToText(const std::vector<SearchReport>& reports) {
  std::vector<std::vector<std::string>> rows;
  double single_s = 0;
  for (const SearchReport& report : reports) {
    const Partition& partition = report.best.partition;
    const bool single = partition.ranks() == 1;
    if (single) single_s = report.best.ttft_s;
    rows.push_back({report::Grouped(partition.tokens()), std::to_string(partition.ranks()),
                    std::string(Name(report.best.scheme)), report::Milliseconds(report.best.ttft_s * kMsPerSecond),
                    fmt::format("{:.2f}x", single_s / report.best.ttft_s), single ? "" : partition.ToString(),
                    single ? "" : report.direct_solve.ToString(), single ? "" : std::to_string(report.evaluations)});
  }
  return report::FormatTable({{"tokens"},
                              {"ranks"},
                              {"strategy", report::Align::kLeft},
                              {"TTFT"},
                              {"speed-up"},
                              {"searched"},
                              {"solved directly"},
                              {"partitions timed"}},
                             rows);
}

}  // namespace runahead::cli
