#include "tune/pace.h"

#include <algorithm>
#include <numeric>

#include "plan/counters.h"
#include "tune/profile_samples.h"

namespace runahead {
namespace {

constexpr int kMostLayers = 4;      // most whole layers timed in a run
constexpr double kEnoughS = 0.025;  // shortest measurement, s, in which caches and clocks settle
constexpr int kMostRuns = 50;

/// The mean of a layer, since a phase is a sum of layers; of several runs that of the later half.
double SettledSeconds(const std::vector<double>& seconds, int runs) {
  const size_t unsettled = runs > 1 ? seconds.size() / 2 : 0;
  return TypicalSeconds({seconds.begin() + static_cast<std::ptrdiff_t>(unsettled), seconds.end()});
}

}  // namespace

PaceMeter::PaceMeter(std::shared_ptr<EngineState> engine, int64_t tokens)
    : engine_(std::move(engine)), tokens_(tokens) {}

void PaceMeter::Prepare(int count) {
  if (gauges_.contains(count)) return;
  HeldEngine held = engine_->Hold();
  std::vector<int> members(static_cast<size_t>(count));
  std::iota(members.begin(), members.end(), 0);
  const int most = std::min(kMostLayers, engine_->decoder().spec().layers - 1);
  const ShortRun run{tokens_ / 4, std::max(tokens_ * 3 / 4, int64_t{1}), most};
  Gauge& gauge = gauges_.try_emplace(count, Gauge{{held, std::move(members), tokens_}, run}).first->second;
  gauge.probe.Run(held, {0, tokens_, most}, 1, nullptr);
  const auto begin = Clock::now();
  gauge.probe.Run(held, run, 2, nullptr);
  const double runs = 2 * kEnoughS / std::chrono::duration<double>(Clock::now() - begin).count();
  gauge.runs = std::clamp(static_cast<int>(runs), 1, kMostRuns);
  gauge.run.last_layer = std::clamp(static_cast<int>(runs * most), std::min(1, most), most);
}

std::vector<double> PaceMeter::Slowdowns(int count, const ClusterCosts& costs) {
  Gauge& gauge = gauges_.at(count);
  const ShortRun& run = gauge.run;
  std::vector<Stretches> seen(static_cast<size_t>(count));
  {
    HeldEngine held = engine_->Hold();
    gauge.probe.Run(held, run, gauge.runs, &seen);
  }
  const auto pairs = static_cast<double>(CausalPairs(run.begin, run.end, engine_->decoder().spec().window(0)));
  std::vector<double> slowdowns;
  for (size_t rank = 0; rank < seen.size(); ++rank) {
    const RowCost cost = costs.devices[rank].At(run.end - run.begin);
    const bool whole_layers = !seen[rank].layer_s.empty();
    const double expected = whole_layers ? cost.layer_s + cost.pair_s * pairs : cost.before_s;
    const double seconds = SettledSeconds(whole_layers ? seen[rank].layer_s : seen[rank].before_s, gauge.runs);
    slowdowns.push_back(seconds / expected);
  }
  return slowdowns;
}

}  // namespace runahead
