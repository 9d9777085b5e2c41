// What the scheduler asks of the plans of a described cluster.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "plan/cluster_costs.h"
#include "plan/work_shape.h"
#include "schedule/crew.h"
#include "schedule/selected_costs.h"

namespace runahead {

/// A Forecast by costs alone. Prompts of about the same length share a plan, so that few are made. Borrows `shape`
/// and `costs`. Not thread-safe.
class CostForecast final : public Forecast {
 public:
  CostForecast(const WorkShape& shape, const ClusterCosts& costs);

  [[nodiscard]] GangChoice Choose(int64_t tokens, const PrefillOptions& options) override;
  [[nodiscard]] std::vector<int64_t> Cuts(const GangChoice& choice, const PrefillOptions& options, int64_t begin,
                                          int64_t end) override;
  [[nodiscard]] double Seconds(const GangChoice& choice, const PrefillOptions& options, std::span<const int64_t> held,
                               int64_t begin, int64_t end) override;
  [[nodiscard]] bool alike() const override { return alike_; }
  [[nodiscard]] double Work(int64_t begin, int64_t end) const override;
  [[nodiscard]] bool IsLong(int64_t /*tokens*/) const override { return false; }
  [[nodiscard]] bool windowed() const override { return windowed_; }

 private:
  using Question = std::tuple<int64_t, Strategy, int, int>;  // rounded tokens, strategy, ranks, topology (-1: any)

  [[nodiscard]] GangChoice Make(int64_t tokens, const PrefillOptions& options) const;

  const WorkShape& shape_;
  const ClusterCosts& costs_;
  SelectedCosts selected_;
  bool alike_ = true;
  bool windowed_ = false;
  std::map<Question, GangChoice> choices_;
};

}  // namespace runahead
