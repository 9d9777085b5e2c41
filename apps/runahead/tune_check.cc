#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/json.h"
#include "bench_run.h"
#include "engine/engine_state.h"
#include "plan/simulator.h"
#include "report/table.h"
#include "report/units.h"
#include "tune.h"

namespace runahead::cli {
namespace {

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

double PredictedMs(const PhasePlanner& planner, const Measurement& measurement) {
  const PrefillOptions& options = measurement.combination.options;
  const Partition partition(measurement.cuts);
  std::vector<int> members(static_cast<size_t>(partition.ranks()));
  std::iota(members.begin(), members.end(), 0);
  const ClusterCosts costs = planner.CostsWhile(partition.ranks()).Select(members);
  const Scheme scheme = SchemeOf(options.strategy, options.topology.value_or(Topology::kChain));
  return Simulate(planner.shape(), costs, scheme, partition).ttft_s * 1e3;
}

}  // namespace

std::vector<Checked> CheckPredictions(const Engine& engine, const DecoderSpec& spec, const CheckPlan& plan,
                                      const std::function<void(double)>& on_round) {
  BenchPlan bench;
  bench.contexts = plan.contexts;
  bench.combinations = Combine(plan);
  bench.repeats = plan.repeats;
  std::vector<Checked> all;
  for (const Measurement& measurement : RunBench(engine, spec, bench, on_round)) {
    all.push_back({measurement.combination.ToString(), measurement.context, Partition(measurement.cuts).ToString(),
                   PredictedMs(engine.state()->planner(), measurement), measurement.MedianMs()});
  }
  return all;
}

std::string ToText(const std::vector<Checked>& checked) {
  std::vector<std::vector<std::string>> rows;
  double largest = 0;
  for (const Checked& row : checked) {
    largest = std::max(largest, std::abs(row.Error()));
    rows.push_back({report::Grouped(row.context), row.way, row.partition, report::Milliseconds(row.predicted_ms),
                    report::Milliseconds(row.measured_ms), fmt::format("{:+.1f} %", 100 * row.Error())});
  }
  return report::FormatTable({{"tokens"},
                              {"strategy", report::Align::kLeft},
                              {"partition"},
                              {"predicted"},
                              {"measured"},
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
                    {"measured_ms", row.measured_ms}});
  }
  return Json{{"checked", std::move(rows)}}.dump(1) + "\n";
}

}  // namespace runahead::cli
