// What the scheduler asks of an engine's plans.
#pragma once

#include "engine/phase_planner.h"
#include "model/decoder_spec.h"
#include "schedule/crew.h"

namespace runahead {

/// A Forecast by a PhasePlanner, which nobody else may use meanwhile. Borrows both.
class PlannerForecast final : public Forecast {
 public:
  PlannerForecast(PhasePlanner& planner, const DecoderSpec& spec) : planner_(planner), spec_(spec) {}

  [[nodiscard]] GangChoice Choose(int64_t tokens, const PrefillOptions& options) override;
  void PlanOver(const std::vector<int>& there) override { planner_.PlanOver(there); }
  [[nodiscard]] std::vector<int64_t> Cuts(const GangChoice& choice, const PrefillOptions& options, int64_t begin,
                                          int64_t end) override;
  [[nodiscard]] double Seconds(const GangChoice& choice, const PrefillOptions& options, std::span<const int64_t> held,
                               int64_t begin, int64_t end) override;
  [[nodiscard]] bool alike() const override { return planner_.alike(); }
  [[nodiscard]] double Work(int64_t begin, int64_t end) const override;
  [[nodiscard]] bool IsLong(int64_t tokens) const override { return spec_.rope.IsLong(tokens); }
  [[nodiscard]] bool windowed() const override { return !spec_.windows.empty(); }

 private:
  /// The plan's formats, by ranks of the engine.
  [[nodiscard]] std::vector<WireFormat> WireBetweenRanks(const PhasePlan& plan) const;

  PhasePlanner& planner_;
  const DecoderSpec& spec_;
};

}  // namespace runahead
