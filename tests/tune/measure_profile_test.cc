#include "tune/measure_profile.h"

#include <gtest/gtest.h>

#include "plan/counters.h"
#include "tests/engine/tiny_model.h"

namespace runahead {
namespace {

TEST(MeasureProfile, GivesCostsForEveryNumberOfRanksAtWork) {
  EngineOptions options;
  options.devices = "cpu:3";
  options.threads_per_rank = 1;
  options.dtype = "f32";
  options.slowdown_of_rank = {1, 2, 1};
  options.tuned_folder = "/nonexistent/tuned";
  const auto engine = LoadEngineState(TinyModelFolder(), options);
  const CostProfile profile = ParseCostProfile(ToJson(MeasureProfile(engine, 256, 2, [](double) {})), "profile");
  EXPECT_EQ(profile.key, engine->Hold().planner().key());
  EXPECT_EQ(profile.active.size(), 3U);
  for (const auto& [active, costs] : profile.active) {
    ASSERT_EQ(costs.ranks(), 3);
    for (const DeviceCost& device : costs.devices) {
      EXPECT_EQ(device.knots.back().rows, 256);
      for (const RowCost& knot : device.knots) {
        const auto pairs = static_cast<double>(CausalPairs(0, knot.rows, 0));
        EXPECT_GT(knot.layer_s + knot.pair_s * pairs, 0);
        EXPECT_GT(knot.before_s, 0);
      }
    }
    EXPECT_GT(costs.links.Between(0, 1).bytes_per_s, 0);
    EXPECT_GT(costs.start_s, 0);
  }
}

}  // namespace
}  // namespace runahead
