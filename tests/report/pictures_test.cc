// Timelines and charts as SVG and as trace events: well-formed whatever the data.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
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

/// The positions and the labels of one axis' marks.
std::vector<std::pair<double, std::string>> Marks(const std::string& svg, char axis) {
  std::vector<std::pair<double, std::string>> marks;
  const std::string text = fmt::format("<text class=\"faint tick-{}\"", axis);
  for (size_t at = svg.find(text); at != std::string::npos; at = svg.find(text, at + 1)) {
    const size_t position = svg.find(fmt::format(" {}=\"", axis), at) + 4;
    const size_t label = svg.find('>', at) + 1;
    marks.emplace_back(std::stod(svg.substr(position)), svg.substr(label, svg.find('<', label) - label));
  }
  return marks;
}

void ExpectClearLabels(const std::string& svg, char axis, double height = 14) {
  std::vector<std::pair<double, std::string>> marks = Marks(svg, axis);
  EXPECT_GE(marks.size(), 3U) << axis << " of " << svg;
  std::sort(marks.begin(), marks.end());
  for (size_t i = 1; i < marks.size(); ++i) {
    const double widths = 6.5 * static_cast<double>(marks[i].second.size() + marks[i - 1].second.size()) / 2;
    EXPECT_GE(marks[i].first - marks[i - 1].first, axis == 'x' ? widths : height) << marks[i].second << " in " << svg;
  }
}

TEST(LineChartSvg, EveryAxisHasThreeClearLabels) {
  const std::vector<std::vector<double>> many_xs = {
      {4096, 16384}, {1500, 1501},   {512, 1024, 2048, 4096, 8192}, {1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128}, {1, 2},
      {1000, 1e6},   {0.001, 0.0011}};
  for (const std::vector<double>& xs : many_xs) {
    for (const auto& [low, high] :
         std::vector<std::pair<double, double>>{{3.86, 3.92}, {1, 1.5}, {0.5, 3e5}, {7, 7}, {1, 1000}, {95, 105}}) {
      for (const Scale scale : {Scale::kLogarithmic, Scale::kLinear}) {
        LineChart chart{"t", "tokens", "ms", {{"one", {}}, {"two", {}}}, scale};
        for (const double x : xs) {
          chart.series[0].points.emplace_back(x, low);
          chart.series[1].points.emplace_back(x, high);
        }
        const std::string svg = LineChartSvg(chart);
        EXPECT_EQ(WhatIsWrongWith(svg), "");
        ExpectClearLabels(svg, 'x');
        ExpectClearLabels(svg, 'y');
      }
    }
  }
}

TEST(LineChartSvg, OneXOrOneSeriesIsBarsWithTheirValues) {
  const LineChart one_x{
      "plan", "ranks", "speed-up", {{"4,096 tokens", {{4, 2.5}}}, {"16,384 tokens", {{4, 3.25}}}}, Scale::kLinear, 4};
  const LineChart one_series{"plan",         "ranks", "speed-up", {{"4,096 tokens", {{1, 1}, {2, 1.9}, {4, 3.1}}}},
                             Scale::kLinear, 4};
  for (const auto& [chart, bars] : {std::pair(one_x, 2), std::pair(one_series, 3)}) {
    const std::string svg = LineChartSvg(chart);
    EXPECT_EQ(WhatIsWrongWith(svg), "");
    EXPECT_EQ(Count(svg, "<rect class=\"bar "), bars);
    EXPECT_EQ(Count(svg, "<circle"), 0);
    ExpectClearLabels(svg, 'x');
    EXPECT_EQ(Marks(svg, 'x').front().second, "0");
    EXPECT_EQ(Marks(svg, 'x').back().second, "4") << "up to the ranks";
  }
  const std::string svg = LineChartSvg(one_x);
  for (const char* part : {">3.25<", ">2.5<", ">16,384 tokens<", ">plan, 4 ranks<"}) {
    EXPECT_NE(svg.find(part), std::string::npos) << part;
  }
  EXPECT_NE(LineChartSvg(one_series).find(">2 ranks<"), std::string::npos);
}

TEST(LineChartSvg, ALinearAxisBeginsAtZero) {
  const LineChart chart{"plan",         "ranks", "speed-up", {{"a", {{1, 1}, {4, 2.5}}}, {"b", {{1, 1}, {4, 3}}}},
                        Scale::kLinear, 4};
  const auto marks = Marks(LineChartSvg(chart), 'y');
  EXPECT_EQ(marks.front().second, "0");
  EXPECT_EQ(marks.back().second, "4");
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
