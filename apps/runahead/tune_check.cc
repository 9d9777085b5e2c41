#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/json.h"
#include "bench_run.h"
#include "engine/engine_state.h"
#include "engine/pace.h"
#include "machine.h"
#include "matmul_ceiling.h"
#include "plan/simulator.h"
#include "report/table.h"
#include "report/units.h"
#include "tune.h"

namespace runahead::cli {
namespace {

// Others use the machine too: of so many times the rounds asked for, those count that they disturbed least.
constexpr int kRoundsPerCounted = 3;

std::vector<Combination> Combine(const CheckPlan& plan) {
  std::vector<Combination> all = {{{Strategy::kSingle, Topology::kChain, {}, 1, false}, ""}};
  for (const int64_t count : plan.ranks) {
    const int ranks = static_cast<int>(count);
    if (ranks == 1) continue;
    for (const Topology topology : plan.topologies) {
      for (const std::string& partition : plan.partitions) {
        const PartitionRequest request = PartitionRequest::Parse(partition);
        if (!request.fractions.empty() && request.fractions.size() != static_cast<size_t>(ranks)) continue;
        all.push_back({{Strategy::kRunahead, topology, request, ranks, false}, partition});
      }
    }
    for (const Strategy strategy : {Strategy::kTspDense, Strategy::kTspCausal}) {
      all.push_back({{strategy, Topology::kDirect, {}, ranks, false}, "even"});
    }
  }
  return all;
}

/// `costs` of the ranks that `measurement` used, each slowed as given.
double PredictedMs(const WorkShape& shape, ClusterCosts costs, const std::vector<double>& slowdowns,
                   const Measurement& measurement) {
  for (size_t rank = 0; rank < slowdowns.size(); ++rank) {
    costs.devices[rank] = costs.devices[rank].Slowed(slowdowns[rank]);
  }
  const PrefillOptions& options = measurement.combination.options;
  const Scheme scheme = SchemeOf(options.strategy, options.topology.value_or(Topology::kChain));
  return Simulate(shape, costs, scheme, Partition(measurement.cuts)).ttft_s * 1e3;
}

/// What the machine did around one run.
struct Round {
  std::vector<double> before;  // the slowdowns of the ranks
  std::vector<double> after;
  int64_t stolen_ms = 0;  // from the beginning of the first measurement to the end of the second

  /// How far a rank's pace went, as a factor, 1 or more.
  [[nodiscard]] double Change() const {
    double most = 1;
    for (size_t rank = 0; rank < before.size(); ++rank) {
      const auto [least, largest] = std::minmax(before[rank], after[rank]);
      most = std::max(most, largest / least);
    }
    return most;
  }
  [[nodiscard]] std::vector<double> Mean() const {
    std::vector<double> mean = before;
    for (size_t rank = 0; rank < mean.size(); ++rank) mean[rank] = (mean[rank] + after[rank]) / 2;
    return mean;
  }
};

/// The `count` rounds during which others took least of the processors, and among equal ones the pace changed least:
/// what is taken during a run slows the run down, but not what is measured beside it.
std::vector<size_t> Steadiest(const std::vector<Round>& rounds, size_t count) {
  std::vector<size_t> order(rounds.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(rounds[a].stolen_ms, rounds[a].Change()) < std::pair(rounds[b].stolen_ms, rounds[b].Change());
  });
  order.resize(std::min(count, order.size()));
  return order;
}

/// `rounds`: one for each of its runs; `counted` of them count.
Checked Check(const PhasePlanner& planner, const Measurement& measurement, const std::vector<Round>& rounds,
              int counted) {
  std::vector<int> members(measurement.cuts.size() - 1);
  std::iota(members.begin(), members.end(), 0);
  const ClusterCosts costs = planner.CostsWhile(static_cast<int>(members.size())).Select(members);
  std::vector<double> slowest;
  std::vector<double> predicted;
  std::vector<double> measured;
  std::vector<double> differences;
  for (const size_t round : Steadiest(rounds, static_cast<size_t>(counted))) {
    const std::vector<double> during = rounds[round].Mean();
    slowest.push_back(*std::max_element(during.begin(), during.end()));
    predicted.push_back(PredictedMs(planner.shape(), costs, during, measurement));
    measured.push_back(measurement.ttft_ms[round]);
    differences.push_back(predicted.back() / measured.back() - 1);
  }
  return {measurement.combination.ToString(),
          measurement.context,
          Partition(measurement.cuts).ToString(),
          MedianOf(slowest),
          MedianOf(predicted),
          MedianOf(measured),
          MedianOf(differences)};
}

}  // namespace

std::vector<Checked> CheckPredictions(const Engine& engine, const DecoderSpec& spec, const CheckPlan& plan,
                                      const std::function<void(double)>& on_round) {
  const PhasePlanner& planner = engine.state()->planner();
  std::vector<Checked> all;
  for (const int64_t context : plan.contexts) {
    PaceMeter pace(engine.state(), context);
    BenchPlan bench;
    bench.contexts = {context};
    bench.combinations = Combine(plan);
    bench.repeats = kRoundsPerCounted * plan.repeats;
    for (const Combination& combination : bench.combinations) pace.Prepare(combination.options.ranks);
    std::vector<std::vector<Round>> rounds(bench.combinations.size());
    bench.around_run = [&](size_t i) {
      const int ranks = bench.combinations[i].options.ranks;
      const bool before = rounds[i].empty() || !rounds[i].back().after.empty();
      if (before) {
        rounds[i].emplace_back().stolen_ms = -StolenMilliseconds();
        rounds[i].back().before = pace.Slowdowns(ranks, planner.CostsWhile(ranks));
      } else {
        rounds[i].back().after = pace.Slowdowns(ranks, planner.CostsWhile(ranks));
        rounds[i].back().stolen_ms += StolenMilliseconds();
      }
    };
    const std::vector<Measurement> measurements = RunBench(engine, spec, bench, on_round);
    for (size_t i = 0; i < measurements.size(); ++i) {
      all.push_back(Check(planner, measurements[i], rounds[i], plan.repeats));
    }
  }
  return all;
}

std::string ToText(const std::vector<Checked>& checked) {
  std::vector<std::vector<std::string>> rows;
  double largest = 0;
  for (const Checked& row : checked) {
    largest = std::max(largest, std::abs(row.difference));
    rows.push_back({report::Grouped(row.context), row.way, row.partition, report::Milliseconds(row.predicted_ms),
                    report::Milliseconds(row.measured_ms), fmt::format("{:.2f}x", row.slowdown),
                    fmt::format("{:+.1f} %", 100 * row.difference)});
  }
  return report::FormatTable({{"tokens"},
                              {"strategy", report::Align::kLeft},
                              {"partition"},
                              {"predicted"},
                              {"measured"},
                              {"slowdown"},
                              {"difference"}},
                             rows) +
         fmt::format("largest difference: {:.1f} %\n", 100 * largest);
}

std::string ToJson(const std::vector<Checked>& checked) {
  Json rows = Json::array();
  for (const Checked& row : checked) {
    rows.push_back({{"context", row.context},
                    {"strategy", row.way},
                    {"partition", row.partition},
                    {"predicted_ms", row.predicted_ms},
                    {"measured_ms", row.measured_ms},
                    {"slowdown", row.slowdown},
                    {"difference", row.difference}});
  }
  return Json{{"checked", std::move(rows)}}.dump(1) + "\n";
}

}  // namespace runahead::cli
