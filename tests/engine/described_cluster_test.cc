// The public planner: what `runahead plan` prints, as values.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "runahead/planner.h"

namespace runahead {
namespace {

void ExpectRefused(const std::function<void()>& call, const std::string& part) {
  try {
    call();
    ADD_FAILURE() << "not refused: " << part;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(DescribedClusterTest, EveryKnownClusterHasAPlan) {
  for (const std::string& name : Planner::KnownClusters()) {
    const Planner planner = Planner::Load(name);
    EXPECT_EQ(planner.device_names().size(), static_cast<size_t>(planner.devices())) << name;
    PlanOptions options;
    options.contexts = {4096};
    options.ranks = {1, 2};
    options.partition.kind = PartitionKind::kEven;
    const std::vector<PromptPlan> plans = planner.Plan(options);
    ASSERT_EQ(plans.size(), 2U) << name;
    EXPECT_DOUBLE_EQ(plans[0].SpeedUp(), 1) << name;
    EXPECT_EQ(plans[1].strategies.size(), 5U) << name;
    EXPECT_EQ(plans[1].devices.size(), 2U) << name;
  }
}

TEST(DescribedClusterTest, PlaysWhatItPlans) {
  const Planner planner = Planner::Parse(Planner::Description("4x4090-pcie"), "llama-7b");
  PlanOptions options;
  options.contexts = {8192};
  options.ranks = {4};
  const PromptPlan plan = planner.Plan(options).at(0);
  for (const PlannedStrategy& strategy : plan.strategies) {
    const SimulatedPrompt played = planner.Simulate(strategy.scheme, strategy.cuts, plan.devices, true);
    EXPECT_DOUBLE_EQ(played.ttft_ms, strategy.ttft_ms) << strategy.scheme;
    EXPECT_EQ(played.busiest_link_bytes, strategy.busiest_link_bytes) << strategy.scheme;
    EXPECT_EQ(played.compute_ms.size(), 4U);
    EXPECT_FALSE(played.timeline.empty());
    EXPECT_GE(strategy.ttft_ms, plan.Best().ttft_ms);
    EXPECT_GE(strategy.ttft_ms, *std::max_element(played.compute_ms.begin(), played.compute_ms.end()));
  }
}

TEST(DescribedClusterTest, RefusesWhatItCannotUse) {
  const Planner planner = Planner::Load("8xh100-nvlink");
  ExpectRefused([&] { (void)Planner::Load("9xabacus"); }, "9xabacus");
  ExpectRefused([&] { (void)Planner::Load("no/such.toml"); }, "no/such.toml");
  ExpectRefused([&] { (void)Planner::Load("8xh100-nvlink", "llama-9t"); }, "llama-9t");
  ExpectRefused([&] { (void)planner.Plan({{int64_t{1} << 33}, {}, {}}); }, "contexts: expected 1 to 4294967296");
  ExpectRefused([&] { (void)planner.Plan({{}, {9}, {}}); }, "ranks: expected 1 to 8, got 9");
  ExpectRefused([&] { (void)planner.Plan({{9}, {2}, {PartitionKind::kManual, {1}}}); }, "2 fractions");
  ExpectRefused([&] { (void)planner.Simulate("sideways", {0, 9}); }, "scheme: unknown 'sideways' (known: single, ");
  ExpectRefused([&] { (void)planner.Simulate("tsp", {1, 9}); }, "1");
  ExpectRefused([&] { (void)planner.Simulate("single", {0, 5, 9}); }, "'single' has one chunk, got 2");
  ExpectRefused([&] { (void)planner.Simulate("tsp", {0, 5, 9}, {0}); }, "2 ranks, got 1");
  ExpectRefused([&] { (void)planner.Simulate("tsp", {0, 5, 9}, {0, 8}); }, "0 to 7, got 8");
  ExpectRefused([&] { (void)planner.Simulate("tsp", {0, 5, 9}, {3, 3}); }, "twice");
}

}  // namespace
}  // namespace runahead
