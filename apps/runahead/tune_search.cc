#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

#include "base/undisturbed.h"
#include "engine/engine_state.h"
#include "matmul_ceiling.h"
#include "plan/search.h"
#include "report/table.h"
#include "report/units.h"
#include "tune.h"

namespace runahead::cli {
namespace {

constexpr double kMsPerSecond = 1000;
constexpr double kPatienceS = 2;  // for a run of CPU ranks to be undisturbed

/// Times partitions of prompts of one length.
class Timer {
 public:
  Timer(const Engine& engine, const DecoderSpec& spec, int64_t context, uint64_t seed)
      : session_(engine.NewSession(context)),
        prompt_(static_cast<size_t>(context)),
        patience_s_(engine.state()->on_gpus() ? 0 : kPatienceS) {
    std::mt19937_64 random(seed);
    for (int32_t& id : prompt_) id = static_cast<int32_t>(random() % static_cast<uint64_t>(spec.vocab));
  }

  /// TTFT of one run that nobody disturbed, or of the least disturbed one, in seconds.
  double Once(Scheme scheme, const Partition& partition) {
    PrefillOptions options;
    options.strategy = partition.ranks() == 1 ? Strategy::kSingle : Strategy::kRunahead;
    options.topology = scheme == Scheme::kRunaheadDirect ? Topology::kDirect : Topology::kChain;
    options.ranks = partition.ranks();
    options.partition.kind = PartitionKind::kManual;
    for (int rank = 0; rank < partition.ranks(); ++rank) {
      options.partition.fractions.push_back(static_cast<double>(partition.rows(rank)));
    }
    const auto prefill_ms = [&] { return session_.Prefill(prompt_, options).ttft_ms; };
    return LeastDisturbed(prefill_ms, patience_s_).value / kMsPerSecond;
  }

  double MedianOfRuns(Scheme scheme, const Partition& partition, int repeats) {
    std::vector<double> seconds;
    for (int repeat = 0; repeat < repeats; ++repeat) seconds.push_back(Once(scheme, partition));
    return MedianOf(seconds);
  }

 private:
  Session session_;
  std::vector<int32_t> prompt_;
  double patience_s_;
};

/// Times the candidates in turn and returns the surely fastest one.
TableEntry Decide(Timer& timer, Scheme scheme, const std::vector<Partition>& candidates, int rounds) {
  std::vector<std::vector<double>> seconds(candidates.size());
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < candidates.size(); ++i) seconds[i].push_back(timer.Once(scheme, candidates[i]));
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
    Timer timer(engine, spec, context, plan.seed);
    const Partition whole = EvenPartition(context, 1);
    (void)timer.Once(Scheme::kSingle, whole);  // makes room and plans
    const int rounds = 4 * plan.repeats + 1;
    reports.push_back({{Scheme::kSingle, whole, timer.MedianOfRuns(Scheme::kSingle, whole, rounds)}, whole, 1});
    for (const int64_t count : plan.ranks) {
      if (count < 2 || count > context) continue;
      for (const Topology topology : plan.topologies) {
        const Scheme scheme = SchemeOf(Strategy::kRunahead, topology);
        std::vector<int> members(static_cast<size_t>(count));
        std::iota(members.begin(), members.end(), 0);
        const ClusterCosts costs = planner.CostsWhile(static_cast<int>(count)).Select(members);
        const Partition solved = SolvePartition(planner.shape(), costs, scheme, context).partition;
        (void)timer.Once(scheme, solved);
        std::vector<std::pair<double, Partition>> timed;
        GridSearchOptions options;
        options.finest = std::max<int64_t>(1, context / plan.finest);
        options.most_evaluations = plan.most_evaluations;
        options.start = solved;
        const auto objective = [&](const Partition& partition) {
          const double seconds = timer.MedianOfRuns(scheme, partition, plan.repeats);
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
        reports.push_back({Decide(timer, scheme, finalists, rounds), solved, found.evaluations});
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
