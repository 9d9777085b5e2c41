#include "tests/engine/serving.h"

#include <gtest/gtest.h>

#include "runahead/error.h"
#include "tests/cli/process.h"

namespace runahead {
namespace {

// Many requests at once, with shared prefixes, full pools and cancelled ones, on 1 to 8 ranks: each gets, bit for
// bit, what it gets alone on one rank.
TEST(ServingTest, RandomTracesGiveTheBitsOfEachRequestAlone) {
  ServingEngines engines;
  int gangs = 0;
  int cancelled = 0;
  int64_t cached = 0;
  for (unsigned seed = 1; seed <= 40; ++seed) {
    const TraceOutcome outcome = PlayTrace(engines, seed);
    EXPECT_EQ(outcome.differ, 0) << outcome.situation << ": " << outcome.first_difference;
    gangs += outcome.gangs;
    cached += outcome.cached_tokens;
    cancelled += outcome.cancelled;
  }
  EXPECT_GT(gangs, 0);
  EXPECT_GT(cached, 0);
  EXPECT_GT(cancelled, 0);
}

// The same with pages on disk, which the second engines find there.
TEST(ServingTest, RowsFromDiskChangeNoBit) {
  const TemporaryFolder folder;
  for (int turn = 0; turn < 2; ++turn) {
    ServingEngines engines(folder / "cache");
    int64_t cached = 0;
    for (unsigned seed = 1; seed <= 3; ++seed) {
      const TraceOutcome outcome = PlayTrace(engines, seed);
      EXPECT_EQ(outcome.differ, 0) << outcome.situation << ": " << outcome.first_difference;
      cached += outcome.cached_tokens;
    }
    EXPECT_GT(cached, 0) << "turn " << turn;
  }
}

}  // namespace
}  // namespace runahead
