#include "paper_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "report/line_chart_svg.h"
#include "report/table.h"
#include "report/units.h"

namespace runahead::cli {
namespace {

constexpr double kScalingContext = 12288;  // prompt length at which the paper looks at scaling

/// The series of `chart` named `name`, made where it is missing.
report::Series& SeriesOf(report::LineChart& chart, const std::string& name) {
  for (report::Series& series : chart.series) {
    if (series.name == name) return series;
  }
  return chart.series.emplace_back(report::Series{name, {}});
}

/// "link:10GB/s" as part of a file's name.
std::string FileName(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-'; },
      '-');
  return text;
}

int64_t MostRanks(const Json& model) { return model.at("ranks").back().get<int64_t>(); }

/// TTFT of each way on most ranks, by context.
report::LineChart ByContext(const Json& model, const std::string& links) {
  report::LineChart chart;
  chart.title = fmt::format("{} in {} on {} ranks, links {}", model.at("model").get<std::string>(),
                            model.at("dtype").get<std::string>(), MostRanks(model), links);
  chart.x_label = "tokens in the prompt";
  chart.y_label = "TTFT in ms, median";
  for (const Json& result : model.at("results")) {
    const auto way = result.at("way").get<std::string>();
    const bool shown = way == "single" || result.at("ranks") == MostRanks(model);
    if (result.at("links") != links || !shown || way == "auto") continue;
    SeriesOf(chart, way)
        .points.emplace_back(result.at("context").get<double>(), result.at("ttft_ms_median").get<double>());
  }
  return chart;
}

/// TTFT of each way by ranks, at the context nearest to the paper's.
report::LineChart ByRanks(const Json& model, const std::string& links) {
  double nearest = 0;
  for (const Json& context : model.at("contexts")) {
    const auto value = context.get<double>();
    if (nearest == 0 || std::abs(std::log(value / kScalingContext)) < std::abs(std::log(nearest / kScalingContext))) {
      nearest = value;
    }
  }
  report::LineChart chart;
  chart.title = fmt::format("{} in {}, {:.0f} tokens, links {}", model.at("model").get<std::string>(),
                            model.at("dtype").get<std::string>(), nearest, links);
  chart.x_label = "ranks";
  chart.y_label = "TTFT in ms, median";
  double single = 0;
  for (const Json& result : model.at("results")) {
    if (result.at("links") != links || result.at("context").get<double>() != nearest) continue;
    const auto way = result.at("way").get<std::string>();
    const auto ms = result.at("ttft_ms_median").get<double>();
    if (way == "single") single = ms;
    if (way == "single" || way == "auto") continue;
    report::Series& series = SeriesOf(chart, way);
    if (series.points.empty()) series.points.emplace_back(1.0, single);
    series.points.emplace_back(result.at("ranks").get<double>(), ms);
  }
  return chart;
}

}  // namespace

std::string SuiteTable(const Json& suite) {
  using report::Align;
  std::string text;
  for (const Json& model : suite.at("models")) {
    std::vector<std::vector<std::string>> rows;
    for (const Json& result : model.at("results")) {
      std::string cuts;
      const Json& all = result.at("cuts");
      for (size_t i = 0; i + 1 < all.size() && all.size() > 2; ++i) {
        cuts += fmt::format("{}{}", cuts.empty() ? "" : "/", all[i + 1].get<int64_t>() - all[i].get<int64_t>());
      }
      const auto over_tsp = result.value("speed_up_over_tsp", 0.0);
      rows.push_back({result.at("links").get<std::string>(), report::Grouped(result.at("context").get<int64_t>()),
                      std::to_string(result.at("ranks").get<int>()), result.at("way").get<std::string>(),
                      result.value("topology", ""), fmt::format("{:.2f}", result.at("ttft_ms_median").get<double>()),
                      fmt::format("{:.1f} %", 100 * result.at("share_of_limit").get<double>()),
                      fmt::format("{:.1f} %", 100 * result.at("efficiency").get<double>()),
                      over_tsp > 0 ? fmt::format("{:.2f}x", over_tsp) : "", cuts});
    }
    text += fmt::format("\n{} in {} on {}\n", model.at("model").get<std::string>(),
                        model.at("dtype").get<std::string>(), model.at("device").get<std::string>());
    text += report::FormatTable({{"links", Align::kLeft},
                                 {"context"},
                                 {"ranks"},
                                 {"way", Align::kLeft},
                                 {"topology", Align::kLeft},
                                 {"TTFT ms"},
                                 {"of the limit"},
                                 {"efficiency"},
                                 {"over TSP"},
                                 {"chunks", Align::kLeft}},
                                rows);
    rows.clear();
    for (const Json& run : model.at("side_traffic")) {
      rows.push_back({run.at("links").get<std::string>(), report::Grouped(run.at("context").get<int64_t>()),
                      run.at("way").get<std::string>(),
                      fmt::format("{:.1f} GB/s", run.at("traffic_bytes_per_s").get<double>() / 1e9),
                      fmt::format("{:.2f}", run.at("ttft_ms_median").get<double>()),
                      fmt::format("{:.2f}", run.at("disturbed_ttft_ms_median").get<double>()),
                      fmt::format("{:+.1f} %", 100 * run.at("lost_share").get<double>())});
    }
    text += "\n" + report::FormatTable({{"links", Align::kLeft},
                                        {"context"},
                                        {"way", Align::kLeft},
                                        {"side traffic"},
                                        {"TTFT ms"},
                                        {"disturbed"},
                                        {"lost"}},
                                       rows);
  }
  return text;
}

std::vector<std::string> LinkCases(const Json& model) {
  std::vector<std::string> cases;
  for (const Json& result : model.at("results")) {
    const auto links = result.at("links").get<std::string>();
    if (std::find(cases.begin(), cases.end(), links) == cases.end()) cases.push_back(links);
  }
  return cases;
}

PlotNames PlotNamesOf(const std::string& model, const std::string& links) {
  const std::string stem = FileName(model + "-" + links);
  return {stem + "-contexts.svg", stem + "-ranks.svg"};
}

std::map<std::string, std::string> SuitePlots(const Json& suite) {
  std::map<std::string, std::string> plots;
  for (const Json& model : suite.at("models")) {
    for (const std::string& links : LinkCases(model)) {
      const PlotNames names = PlotNamesOf(model.at("model").get<std::string>(), links);
      plots[names.contexts] = report::LineChartSvg(ByContext(model, links));
      plots[names.ranks] = report::LineChartSvg(ByRanks(model, links));
    }
  }
  return plots;
}

}  // namespace runahead::cli
