#include "schedule/simulated_crew.h"

#include <algorithm>

#include "base/check.h"
#include "plan/behind_prefix.h"
#include "plan/partition.h"
#include "plan/prompt_flops.h"
#include "plan/scheme.h"
#include "plan/simulator.h"

namespace runahead {

SimulatedCrew::SimulatedCrew(const WorkShape& shape, const ClusterCosts& costs)
    : shape_(shape),
      costs_(costs),
      layers_(shape.FirstLayers(shape.layers - 1)),
      selected_(costs),
      busy_s_(static_cast<size_t>(costs.ranks()), 0.0) {}

void SimulatedCrew::At(double time_s, std::function<void()> what) {
  calls_.emplace(Key(std::max(time_s, now_s_), ++order_), std::move(what));
}

void SimulatedCrew::Run(Scheduler& scheduler) {
  while (!steps_.empty() || !calls_.empty()) {
    const double step_s = steps_.empty() ? calls_.begin()->first.first : steps_.begin()->first.first;
    now_s_ = calls_.empty() ? step_s : std::min(step_s, calls_.begin()->first.first);
    while (!steps_.empty() && steps_.begin()->first.first <= now_s_) {
      auto ended = steps_.extract(steps_.begin());
      scheduler.Finish(std::move(ended.mapped().result));
    }
    bool called = false;
    while (!calls_.empty() && calls_.begin()->first.first <= now_s_) {
      calls_.extract(calls_.begin()).mapped()();
      called = true;
    }
    if (called) StopEarly();
    scheduler.Work();
  }
}

void SimulatedCrew::Lose(int rank, bool answered) {
  const auto found = std::find_if(steps_.begin(), steps_.end(),
                                  [rank](const auto& entry) { return entry.second.result.rank == rank; });
  if (found == steps_.end()) return;
  auto moved = steps_.extract(found);
  busy_s_[static_cast<size_t>(rank)] -= moved.key().first - now_s_;
  if (!answered) {
    moved.mapped().result.lost = true;
    moved.mapped().result.drawn.clear();
  }
  moved.key().first = now_s_;
  steps_.insert(std::move(moved));
}

double SimulatedCrew::SecondsOf(int rank, const StepPlan& plan) const {
  const DeviceCost& device = costs_.devices[static_cast<size_t>(rank)];
  int64_t rows = 0;
  int64_t draws = 0;
  for (const ChunkPlan& chunk : plan.chunks) {
    rows += chunk.rows();
    draws += chunk.draw ? 1 : 0;
  }
  const RowCost cost = device.At(rows);
  double seconds = costs_.start_s + costs_.end_s + cost.before_s + (shape_.layers - 1) * cost.layer_s;
  for (const ChunkPlan& chunk : plan.chunks) {
    // The rows of a chunk share the reading of the keys and values that they see.
    for (const LayersOfWindow& alike : layers_) {
      const auto pairs = static_cast<double>(CausalPairs(chunk.begin, chunk.end(), alike.window));
      const int64_t seen = alike.window == 0 ? chunk.end() : std::min(chunk.end(), alike.window + chunk.rows());
      seconds += alike.layers * std::max(pairs * cost.pair_s, static_cast<double>(seen) * device.finish_pair_s);
    }
    if (chunk.draw) seconds += static_cast<double>(chunk.end()) * device.finish_pair_s;
  }
  if (draws == 0) return seconds;
  const double one = device.At(1).layer_s;
  return seconds + device.finish_s * (one > 0 ? device.At(draws).layer_s / one : static_cast<double>(draws));
}

double SimulatedCrew::SecondsOfGang(const std::vector<StepPlan>& plans) {
  constexpr int kPlayedEachTime = 32;  // members up to which each round is played
  constexpr size_t kMostRemembered = 100'000;
  const GangPlan& gang = *plans.front().gang;
  const ClusterCosts& used = selected_.Of(gang.members);
  const Scheme scheme = SchemeOf(gang.strategy, gang.topology);
  const auto play = [&] { return Simulate(shape_, used, scheme, Partition(gang.cuts)).ttft_s; };
  double seconds = 0;
  if (std::ssize(gang.members) <= kPlayedEachTime) {
    seconds = play();
  } else {  // rounds of about this place and length take as long for each FLOP
    const int64_t rows = gang.cuts.back() - gang.cuts.front();
    int64_t coarse = 1;
    while (coarse * 8 < rows) coarse *= 2;
    std::vector<int64_t> key(gang.members.begin(), gang.members.end());
    key.insert(key.end(), {static_cast<int64_t>(scheme), rows / coarse * coarse, gang.cuts.front() / (4 * coarse)});
    if (gang_s_.size() >= kMostRemembered) gang_s_.clear();
    const double flops = PromptFlops(shape_, gang.cuts.front(), gang.cuts.back());
    const auto [known, is_new] = gang_s_.try_emplace(std::move(key), 0.0);
    if (is_new) known->second = play() / flops;
    seconds = known->second * flops;
  }
  return SecondsWithPrefix(shape_, seconds, PrefixSeconds(shape_, used, gang.cuts.front(), gang.held));
}

void SimulatedCrew::Begin(int rank, const StepPlan& plan, double seconds) {
  Step step;
  step.result.step = plan.step;
  step.result.rank = rank;
  step.result.seconds = seconds;
  for (const ChunkPlan& chunk : plan.chunks) {
    if (chunk.draw) step.result.drawn.push_back({chunk.sequence, {0, 0.0F}, {}, {}});
  }
  step.stop = plan.stop;
  step.result.begin_s = now_s_;
  busy_s_[static_cast<size_t>(rank)] += seconds;
  steps_.emplace(Key(now_s_ + seconds, ++order_), std::move(step));
}

void SimulatedCrew::Start(int rank, StepPlan plan) { Begin(rank, plan, SecondsOf(rank, plan)); }

void SimulatedCrew::StartTogether(std::vector<StepPlan> plans) {
  const double seconds = SecondsOfGang(plans);
  const std::vector<int> members = plans.front().gang->members;
  for (size_t i = 0; i < plans.size(); ++i) Begin(members[i], plans[i], seconds);
}

void SimulatedCrew::StopEarly() {
  for (auto next = steps_.begin(); next != steps_.end();) {
    const auto here = next++;
    Step& step = here->second;
    if (step.result.stopped || step.stop == nullptr || !*step.stop) continue;
    const double end_s = std::min(here->first.first, now_s_ + step.result.seconds / shape_.layers);
    auto moved = steps_.extract(here);
    busy_s_[static_cast<size_t>(step.result.rank)] -= moved.key().first - end_s;
    step.result.stopped = true;
    step.result.drawn.clear();
    step.result.seconds = end_s - step.result.begin_s;
    moved.key().first = end_s;
    steps_.insert(std::move(moved));
  }
}

}  // namespace runahead
