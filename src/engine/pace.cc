#include "engine/pace.h"

#include <algorithm>
#include <numeric>

#include "engine/profile_samples.h"
#include "plan/counters.h"

namespace runahead {
namespace {

constexpr int kLastLayer = 4;       // four layers are timed
constexpr double kEnoughS = 0.025;  // of one measurement, so that caches and clocks settle
constexpr int kMostRuns = 50;

/// Of a layer; of several runs the later half. A layer that lost its processor says nothing of the next ones.
double SettledSeconds(const std::vector<double>& seconds, int runs) {
  const size_t unsettled = runs > 1 ? seconds.size() / 2 : 0;
  return Usual({seconds.begin() + static_cast<std::ptrdiff_t>(unsettled), seconds.end()});
}

}  // namespace

PaceMeter::PaceMeter(std::shared_ptr<EngineState> engine, int64_t tokens)
    : engine_(std::move(engine)), tokens_(tokens) {
  const int last_layer = std::min(kLastLayer, engine_->decoder().spec().layers - 1);
  run_ = {tokens / 4, std::max(tokens * 3 / 4, int64_t{1}), last_layer};
}

void PaceMeter::Prepare(int count) {
  if (probes_.contains(count)) return;
  const std::lock_guard lock(engine_->busy());
  std::vector<int> members(static_cast<size_t>(count));
  std::iota(members.begin(), members.end(), 0);
  Probe& probe = probes_.try_emplace(count, *engine_, std::move(members), tokens_).first->second;
  probe.Run({0, tokens_, run_.last_layer}, 1, nullptr);
  const auto begin = Clock::now();
  probe.Run(run_, 2, nullptr);
  const double run_s = std::chrono::duration<double>(Clock::now() - begin).count() / 2;
  runs_ = std::clamp(static_cast<int>(kEnoughS / run_s), 1, kMostRuns);
}

std::vector<double> PaceMeter::Slowdowns(int count, const ClusterCosts& costs) {
  std::vector<Stretches> seen(static_cast<size_t>(count));
  {
    const std::lock_guard lock(engine_->busy());
    probes_.at(count).Run(run_, runs_, &seen);
  }
  const auto pairs = static_cast<double>(CausalPairs(run_.begin, run_.end, engine_->planner().shape().window(0)));
  std::vector<double> slowdowns;
  for (size_t rank = 0; rank < seen.size(); ++rank) {
    const RowCost cost = costs.devices[rank].At(run_.end - run_.begin);
    const bool whole_layers = !seen[rank].layer_s.empty();
    const double expected = whole_layers ? cost.layer_s + cost.pair_s * pairs : cost.before_s;
    const double seconds = SettledSeconds(whole_layers ? seen[rank].layer_s : seen[rank].before_s, runs_);
    slowdowns.push_back(seconds / expected);
  }
  return slowdowns;
}

}  // namespace runahead
