#include "experiment/check_predictions.h"

#include <algorithm>

#include "base/median.h"
#include "base/undisturbed.h"
#include "engine/engine_state.h"
#include "experiment/bench_run.h"
#include "plan/simulator.h"
#include "tune/pace.h"

namespace runahead {
namespace {

constexpr double kPatienceS = 0.8;       // longest wait, s, for an undisturbed round of CPU ranks
constexpr size_t kRoundsPerCounted = 3;  // most rounds for each one that counts, the least disturbed

std::vector<Combination> Combine(const CheckPlan& plan) {
  std::vector<Combination> all;
  const auto add = [&](Strategy strategy, Topology topology, int ranks, const std::string& partition) {
    Combination& combination = all.emplace_back();
    combination.options.strategy = strategy;
    combination.options.topology = topology;
    combination.options.ranks = ranks;
    combination.partition_name = partition;
    if (!partition.empty()) combination.options.partition = PartitionRequest::Parse(partition);
  };
  add(Strategy::kSingle, Topology::kChain, 1, "");
  for (const int64_t count : plan.ranks) {
    const int ranks = static_cast<int>(count);
    if (ranks == 1) continue;
    for (const Topology topology : plan.topologies) {
      for (const std::string& partition : plan.partitions) {
        const size_t fractions = PartitionRequest::Parse(partition).fractions.size();
        if (fractions == 0 || fractions == static_cast<size_t>(ranks)) {
          add(Strategy::kRunahead, topology, ranks, partition);
        }
      }
    }
    for (const Strategy strategy : {Strategy::kTspDense, Strategy::kTspCausal}) {
      add(strategy, Topology::kDirect, ranks, "");
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

/// One run, and the slowdowns of its ranks around it.
struct TimedRound {
  std::vector<double> before;
  double ttft_ms = 0;
  std::vector<double> after;

  [[nodiscard]] std::vector<double> MeanSlowdowns() const {
    std::vector<double> mean = before;
    for (size_t rank = 0; rank < mean.size(); ++rank) mean[rank] = (mean[rank] + after[rank]) / 2;
    return mean;
  }
};

Checked Check(const PhasePlanner& planner, const Measurement& measurement,
              const std::vector<Sample<TimedRound>>& rounds) {
  const ClusterCosts costs = planner.CostsOfFirst(static_cast<int>(measurement.cuts.size()) - 1);
  std::vector<double> slowest;
  std::vector<double> predicted;
  std::vector<double> differences;
  std::vector<double> measured;
  int undisturbed = 0;
  const std::vector<Sample<TimedRound>> counted =
      Counted(rounds, (rounds.size() + kRoundsPerCounted - 1) / kRoundsPerCounted);
  for (const Sample<TimedRound>& round : counted) {
    const std::vector<double> during = round.value.MeanSlowdowns();
    slowest.push_back(*std::max_element(during.begin(), during.end()));
    predicted.push_back(PredictedMs(planner.shape(), costs, during, measurement));
    measured.push_back(round.value.ttft_ms);
    differences.push_back(predicted.back() / measured.back() - 1);
    undisturbed += round.undisturbed() ? 1 : 0;
  }
  return {measurement.combination.ToString(),
          measurement.context,
          Partition(measurement.cuts).ToString(),
          MedianOf(slowest),
          MedianOf(predicted),
          MedianOf(measured),
          MedianOf(differences),
          static_cast<int>(counted.size()),
          undisturbed};
}

}  // namespace

std::vector<Checked> CheckPredictions(const Engine& engine, const DecoderSpec& spec, const CheckPlan& plan,
                                      const std::function<void(double)>& on_round) {
  const std::shared_ptr<EngineState> state = StateOf(engine);
  const PhasePlanner planner = state->Hold().planner();
  const double patience_s = state->on_gpus() ? 0 : kPatienceS;
  std::vector<Checked> all;
  BenchPlan all_runs;
  all_runs.contexts = plan.contexts;
  all_runs.combinations = Combine(plan);
  CheckPlans(engine, all_runs);
  for (const int64_t context : plan.contexts) {
    PaceMeter pace(state, context);
    BenchPlan bench;
    bench.contexts = {context};
    bench.combinations = Combine(plan);
    bench.repeats = plan.repeats;
    for (const Combination& combination : bench.combinations) pace.Prepare(combination.options.ranks);
    std::vector<std::vector<Sample<TimedRound>>> rounds(bench.combinations.size());
    bench.time_run = [&](size_t i, const std::function<double()>& prefill_ms) {
      const int ranks = bench.combinations[i].options.ranks;
      const ClusterCosts& costs = planner.CostsWhile(ranks);
      std::vector<double> paces = pace.Slowdowns(ranks, costs);
      const auto take = [&] {
        TimedRound round{paces, prefill_ms(), pace.Slowdowns(ranks, costs)};
        paces = round.after;
        return round;
      };
      const Sample<TimedRound> sample = LeastDisturbed(take, patience_s);
      rounds[i].push_back(sample);
      return Sample<double>{sample.value.ttft_ms, sample.seconds, sample.stolen_s};
    };
    const std::vector<Measurement> measurements = RunBench(engine, spec, bench, on_round);
    for (size_t i = 0; i < measurements.size(); ++i) all.push_back(Check(planner, measurements[i], rounds[i]));
  }
  return all;
}

}  // namespace runahead
