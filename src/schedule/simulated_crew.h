// Ranks that only take time: a Crew on a virtual clock, for described clusters.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "plan/cluster_costs.h"
#include "plan/work_shape.h"
#include "schedule/scheduler.h"
#include "schedule/selected_costs.h"

namespace runahead {

/// Plays the steps of ranks that cost what ClusterCosts says. Every token that is drawn is id 0. A step that is
/// stopped ends with its layer. Deterministic. Borrows `shape` and `costs`. Not thread-safe.
class SimulatedCrew final : public Crew {
 public:
  SimulatedCrew(const WorkShape& shape, const ClusterCosts& costs);

  /// Calls `what` at `time_s`, or at once where that has passed.
  void At(double time_s, std::function<void()> what);
  /// The step of `rank`, if it has one, ends now, as lost; with `answered` its result came just before the loss.
  void Lose(int rank, bool answered = false);
  /// Goes on until nothing is left to happen.
  void Run(Scheduler& scheduler);

  [[nodiscard]] int ranks() const override { return costs_.ranks(); }
  void Start(int rank, StepPlan plan) override;
  void StartTogether(std::vector<StepPlan> plans) override;
  void Renew(std::span<const int> /*members*/) override {}
  [[nodiscard]] double Now() const override { return now_s_; }

  /// Time during which `rank` was at work, s.
  [[nodiscard]] double busy_s(int rank) const { return busy_s_.at(static_cast<size_t>(rank)); }

 private:
  using Key = std::pair<double, uint64_t>;  // time, and the order of what happens at that time
  /// A step under way.
  struct Step {
    StepResult result;
    std::shared_ptr<std::atomic<bool>> stop;
  };

  [[nodiscard]] double SecondsOf(int rank, const StepPlan& plan) const;
  [[nodiscard]] double SecondsOfGang(const std::vector<StepPlan>& plans);
  void Begin(int rank, const StepPlan& plan, double seconds);
  /// Ends the steps that were stopped at their next layer.
  void StopEarly();

  const WorkShape& shape_;
  const ClusterCosts& costs_;
  std::vector<LayersOfWindow> layers_;  // all but the last layer, by their windows
  SelectedCosts selected_;
  double now_s_ = 0;
  uint64_t order_ = 0;
  std::map<Key, Step> steps_;
  std::map<Key, std::function<void()>> calls_;
  std::vector<double> busy_s_;                     // [ranks]
  std::map<std::vector<int64_t>, double> gang_s_;  // members, scheme and rounded cuts to seconds for each FLOP
};

}  // namespace runahead
