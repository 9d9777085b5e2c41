// Timelines and charts as SVG and as trace events: well-formed whatever the data.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/json.h"
#include "report/line_chart_svg.h"
#include "report/svg.h"
#include "report/timeline_svg.h"
#include "report/trace_events.h"
#include "tests/report/well_formed.h"

namespace runahead::report {
namespace {

const std::vector<TimelineEvent> kTwoRanks = {
    {0, 0, Activity::kCompute, 0, 4, 0},  {0, 0, Activity::kSend, 4, 5, 2'000'000, 1},
    {0, 1, Activity::kCompute, 5, 9, 0},  {0, 1, Activity::kSend, 8, 12, 2'000'000, 1},
    {1, 0, Activity::kCompute, 0, 3, 0},  {1, 0, Activity::kWait, 3, 5, 2'000'000},
    {1, 1, Activity::kCompute, 5, 10, 0}, {1, 0, Activity::kReceive, 4, 5, 2'000'000, 0},
};

TEST(WellFormed, FindsWhatIsWrong) {
  EXPECT_EQ(WhatIsWrongWith("<a x=\"1\"><b/>t &amp; u</a>\n"), "");
  EXPECT_NE(WhatIsWrongWith(""), "");
  EXPECT_NE(WhatIsWrongWith("<a>"), "");
  EXPECT_NE(WhatIsWrongWith("<a><b></a></b>"), "");
  EXPECT_NE(WhatIsWrongWith("<a>x & y</a>"), "");
  EXPECT_NE(WhatIsWrongWith("<a x=1></a>"), "");
  EXPECT_NE(WhatIsWrongWith("<a/><b/>"), "");
  EXPECT_NE(WhatIsWrongWith("<a x=\"<\"/>"), "");
}

TEST(EscapeXml, LeavesNoMarkup) {
  EXPECT_EQ(EscapeXml("a<b & \"c\" 'd'>\x01\x1b"), "a&lt;b &amp; &quot;c&quot; &#39;d&#39;&gt;");
}

TEST(TimelineSvg, DrawsEveryEventWithTooltips) {
  const std::string svg = TimelineSvg(kTwoRanks, {"Llama & <friends>", {"rank 0 \"first\""}});
  EXPECT_EQ(WhatIsWrongWith(svg), "");
  EXPECT_EQ(Count(svg, "<title>rank "), 8);
  for (const char* moved : {"rank 0, layer 0: send 1.00 ms (from 4.00 ms) to rank 1, 1.91 MiB at 2.00 GB/s",
                            "rank 1, layer 0: receive 1.00 ms (from 4.00 ms) from rank 0, 1.91 MiB at 2.00 GB/s"}) {
    EXPECT_NE(svg.find(moved), std::string::npos) << moved;
  }
  EXPECT_NE(svg.find("rank 0 &quot;first&quot;"), std::string::npos);
  EXPECT_NE(svg.find(">rank 1<"), std::string::npos) << "a lane without a label of its own";
  EXPECT_NE(svg.find("prefers-color-scheme: dark"), std::string::npos);
}

TEST(TimelineSvg, EdgeCases) {
  EXPECT_EQ(WhatIsWrongWith(TimelineSvg({})), "");
  const std::vector<TimelineEvent> instant = {{0, 0, Activity::kCompute, 0, 0, 0}};
  EXPECT_EQ(WhatIsWrongWith(TimelineSvg(instant)), "");
  const std::vector<TimelineEvent> huge = {{0, 0, Activity::kCompute, 0, 1e12, 0}};
  EXPECT_EQ(WhatIsWrongWith(TimelineSvg(huge)), "");
  const std::vector<TimelineEvent> late_rank = {{5, 0, Activity::kSend, 1, 1, 10}, {5, 0, Activity::kWait, 1, 2, 10}};
  const std::string svg = TimelineSvg(late_rank);
  EXPECT_EQ(WhatIsWrongWith(svg), "");
  EXPECT_EQ(Count(svg, "text-anchor=\"end\">rank "), 6);
  EXPECT_EQ(svg.find("inf"), std::string::npos) << "a transfer that took no time has no rate";
}

TEST(TraceEvents, OneThreadPerRankAndEachForItsSendsAndReceives) {
  const Json trace = Json::parse(TraceEvents(kTwoRanks));
  std::vector<Json> complete;
  for (const Json& event : trace.at("traceEvents")) {
    if (event.at("ph") != "X") continue;
    complete.push_back(event);
    EXPECT_GE(event.at("dur").get<double>(), 0);
    const int thread = event.at("tid").get<int>() % 3;
    EXPECT_EQ(thread == 1, event.at("cat") == "send");
    EXPECT_EQ(thread == 2, event.at("cat") == "receive");
    EXPECT_EQ(event.at("args").contains("GB/s"), thread != 0);
  }
  ASSERT_EQ(complete.size(), 8U);
  EXPECT_EQ(complete[0].at("ts"), 0.0);
  EXPECT_EQ(complete[0].at("dur"), 4000.0) << "microseconds";
  EXPECT_DOUBLE_EQ(complete[1].at("args").at("GB/s").get<double>(), 2.0);
}

TEST(TraceEvents, NoEvents) { EXPECT_EQ(Json::parse(TraceEvents({})).at("traceEvents").size(), 0U); }

TEST(LineChartSvg, DrawsSeriesAndSkipsWhatALogarithmCannotShow) {
  LineChart chart{"TTFT", "tokens", "ms", {}};
  chart.series.push_back({"single <1>", {{512, 10}, {1024, 25}, {2048, 80}}});
  chart.series.push_back({"runahead", {{512, 6}, {1024, 0}, {2048, std::numeric_limits<double>::infinity()}}});
  const std::string svg = LineChartSvg(chart);
  EXPECT_EQ(WhatIsWrongWith(svg), "");
  EXPECT_EQ(Count(svg, "<circle"), 4);
  EXPECT_EQ(Count(svg, "<polyline"), 2);
}

TEST(LineChartSvg, EdgeCases) {
  EXPECT_EQ(WhatIsWrongWith(LineChartSvg({})), "");
  EXPECT_EQ(WhatIsWrongWith(LineChartSvg({"t", "x", "y", {{"one", {{512, 3}}}}})), "");
  LineChart crowded{"t", "x", "y", {}};
  for (int i = 0; i < 40; ++i) crowded.series.push_back({"s", {{1 + i, 1e-3}, {1000 + i, 1e6}}});
  EXPECT_EQ(WhatIsWrongWith(LineChartSvg(crowded)), "");
}

}  // namespace
}  // namespace runahead::report
