// What is printed: units, ticks, tables and the terminal's timeline.
#include <gtest/gtest.h>

#include <sstream>

#include "report/lanes.h"
#include "report/table.h"
#include "report/ticks.h"
#include "report/timeline_text.h"
#include "report/units.h"
#include "tests/report/well_formed.h"

namespace runahead::report {
namespace {

TEST(Units, AreShort) {
  EXPECT_EQ(Bytes(0), "0 B");
  EXPECT_EQ(Bytes(1023), "1023 B");
  EXPECT_EQ(Bytes(1536), "1.50 KiB");
  EXPECT_EQ(Bytes(size_t{20} << 30), "20.0 GiB");
  EXPECT_EQ(Bytes((size_t{1} << 20) - 1), "1.00 MiB");
  EXPECT_EQ(Grouped(0), "0");
  EXPECT_EQ(Grouped(999), "999");
  EXPECT_EQ(Grouped(1234567), "1,234,567");
  EXPECT_EQ(Grouped(-1000), "-1,000");
  EXPECT_EQ(Grouped(-100), "-100");
  EXPECT_EQ(Milliseconds(0.0421), "0.042 ms");
  EXPECT_EQ(Milliseconds(981.2), "981 ms");
  EXPECT_EQ(Milliseconds(12345), "12.3 s");
  EXPECT_EQ(Rate(2'000'000, 1), "2.00 GB/s");
  EXPECT_EQ(Rate(1, 0), "");
}

TEST(Ticks, AreRoundAndCoverTheAxis) {
  EXPECT_EQ(LinearTicks(10, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(LinearTicks(7, 8).size(), 8U);
  EXPECT_LE(LinearTicks(1e-9, 8).size(), 11U);
  EXPECT_LE(LinearTicks(1e12, 8).size(), 11U);
  EXPECT_EQ(LogTicks(1, 10, 14).size(), 10U);
  EXPECT_EQ(LogTicks(1, 10, 5), (std::vector<double>{1, 2, 5, 10}));
  EXPECT_EQ(LogTicks(1, 10, 3), (std::vector<double>{1, 10}));
  EXPECT_LE(LogTicks(1e-6, 1e6, 14).size(), 13U);
  EXPECT_EQ(TickLabel(0.05), "0.05");
}

TEST(FormatTable, AlignsCellsAndCountsCharacters) {
  EXPECT_EQ(FormatTable({{"name", Align::kLeft}, {"ms"}}, {{"é", "10"}, {"longer", "1.25"}}),
            "name      ms\n"
            "------  ----\n"
            "é         10\n"
            "longer  1.25\n");
  EXPECT_EQ(FormatTable({{"a", Align::kLeft}}, {}), "a\n-\n");
}

TEST(Lane, BusyCountsOverlappingEventsOnce) {
  const std::vector<TimelineEvent> events = {{0, 0, Activity::kSend, 0, 4, 1},
                                             {0, 1, Activity::kSend, 2, 6, 1},
                                             {0, 1, Activity::kSend, 3, 5, 1},
                                             {0, 1, Activity::kCompute, 0, 1, 0}};
  const Lanes lanes = SplitIntoLanes(events);
  ASSERT_EQ(lanes.ranks.size(), 1U);
  EXPECT_EQ(lanes.ranks[0].Busy(Activity::kSend), 6);
  EXPECT_EQ(lanes.ranks[0].Busy(Activity::kCompute), 1);
  EXPECT_EQ(lanes.ranks[0].Busy(Activity::kWait), 0);
  EXPECT_EQ(lanes.end_ms, 6);
}

TEST(TimelineText, ShowsWhatTookMostOfEachColumn) {
  const std::vector<TimelineEvent> events = {{0, 0, Activity::kCompute, 0, 5, 0},
                                             {0, 0, Activity::kSend, 5, 6, 100},
                                             {1, 0, Activity::kWait, 0, 6, 100},
                                             {1, 0, Activity::kCompute, 6, 10, 0}};
  const std::string text = TimelineText(events, 10);
  EXPECT_NE(text.find("rank 0 |█████▲    |  50%   0%  10%\n"), std::string::npos) << text;
  EXPECT_NE(text.find("rank 1 |░░░░░░████|  40%  60%   0%\n"), std::string::npos) << text;
  EXPECT_NE(text.find("10.0 ms"), std::string::npos) << text;
}

TEST(TimelineText, EdgeCases) {
  EXPECT_EQ(TimelineText({}), "(the timeline is empty)\n");
  const std::vector<TimelineEvent> one = {{0, 0, Activity::kCompute, 0, 1e9, 0}};
  EXPECT_EQ(Count(TimelineText(one), "█"), 70 + 2) << "the bar, the heading and the legend";
  std::vector<TimelineEvent> many;
  for (int rank = 0; rank < 12; ++rank) many.push_back({rank, 0, Activity::kSend, rank * 1.0, rank + 40.0, 1});
  std::istringstream lines(TimelineText(many));
  std::string line;
  for (int i = 0; std::getline(lines, line) && i <= 12; ++i) {
    if (i == 0) continue;  // the heading
    EXPECT_EQ(line.find('|'), 8U) << line;
  }
}

}  // namespace
}  // namespace runahead::report
