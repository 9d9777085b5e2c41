// Which ranks take part.
#include "plan/planner.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/plan/random_cases.h"

namespace runahead {
namespace {

/// Ranks whose layers take a thousandth of a second and a millionth for each row, joined by links of such a latency.
ClusterCosts Costs(const std::vector<double>& slowdowns, double latency_s) {
  ClusterCosts costs;
  DeviceCost device;
  device.knots = {{1, 1e-3, 1e-3, 0}, {1001, 2e-3, 2e-3, 0}};
  for (const double slowdown : slowdowns) costs.devices.push_back(device.Slowed(slowdown));
  costs.links = LinkTable(static_cast<int>(slowdowns.size()), {latency_s, 1e12, 0, Mover::kEngine});
  return costs;
}

PhasePlan Choose(const ClusterCosts& costs, int64_t tokens, bool may_leave_out = true) {
  WorkShape shape = SmallShape();
  shape.layers = 10;
  PlanRequest request;
  request.tokens = tokens;
  request.ranks = costs.ranks();
  request.may_leave_out = may_leave_out;
  return ChoosePlan(
      shape, [&](int) -> const ClusterCosts& { return costs; }, request);
}

TEST(ChoosePlan, UsesMoreRanksForLongerPrompts) {
  const ClusterCosts costs = Costs({1, 1, 1, 1}, 1e-5);
  EXPECT_EQ(Choose(costs, 4).members.size(), 1U);
  EXPECT_EQ(Choose(costs, 100'000).members.size(), 4U);
  EXPECT_EQ(Choose(costs, 4, false).members.size(), 4U);
  EXPECT_EQ(Choose(costs, 3, false).members.size(), 3U) << "no more ranks than tokens";
}

TEST(ChoosePlan, LeavesOutARankThatIsTooSlow) {
  const PhasePlan plan = Choose(Costs({1.2, 1000, 1}, 1e-5), 100'000);
  EXPECT_EQ(plan.members, (std::vector<int>{0, 2}));
  EXPECT_NE(plan.reason.find("ranks used 2 of 3 (ranks 0,2)"), std::string::npos) << plan.reason;
  EXPECT_EQ(Choose(Costs({1, 2, 1}, 1e-5), 100'000).members.size(), 3U);
}

TEST(ChoosePlan, StaysOnOneRankWhereLinksAreTooSlow) {
  EXPECT_EQ(Choose(Costs({1, 1}, 10), 1000).scheme, Scheme::kSingle);
}

TEST(ChoosePlan, RepeatsItself) {
  std::mt19937 random(9);
  const ClusterCosts costs = RandomCosts(random, 4, Mover::kThread);
  const PhasePlan plan = Choose(costs, 200);
  const PhasePlan again = Choose(costs, 200);
  EXPECT_EQ(plan.partition, again.partition);
  EXPECT_EQ(plan.reason, again.reason);
}

}  // namespace
}  // namespace runahead
