#include "bench_serving.h"

#include <fmt/format.h>

#include <climits>
#include <filesystem>

#include "base/output_file.h"
#include "experiment/serving_suite.h"
#include "flags.h"
#include "model/model_loader.h"
#include "model_folder.h"
#include "output.h"
#include "report/line_chart_svg.h"
#include "report/table.h"
#include "runahead/error.h"

namespace runahead::cli {
namespace {

constexpr const char* kLongTokens = "4096";

ServingPlan ServingPlanOf(const SuiteFlags& flags, const SuiteRequest& request) {
  if (request.models.size() != 1) {
    throw ConfigError(fmt::format("--model: the serving suite takes one, got '{}' too", request.models.at(1)));
  }
  const std::vector<int64_t> lengths =
      ParseIntegers("--contexts", request.contexts.empty() ? kLongTokens : request.contexts, 256, INT32_MAX);
  if (lengths.size() != 1) {
    throw ConfigError(fmt::format(
        "--contexts: the serving suite takes the tokens of a long prompt alone, got {} values", lengths.size()));
  }
  const Model model = OpenModel(request.models.front(), request.engine);
  const int64_t context = ConfigOf(model).spec().max_positions;
  constexpr int64_t kTurns = 256;  // tokens of an answer and of what follows it
  if (lengths.front() + lengths.front() / 64 + kTurns > context) {
    throw ConfigError(
        fmt::format("--contexts: prompts of {} tokens with their turns are more than the model's context of {}",
                    lengths.front(), context));
  }
  ServingPlan plan{model, NameOfFolder(request.models.front()), LoadEngine, request.engine};
  plan.long_tokens = lengths.front();
  plan.requests = flags.requests;
  plan.gap_s = flags.arrival_gap_ms / 1e3;
  plan.seed = request.seed;
  return plan;
}

std::string ServingTable(const Json& suite) {
  std::vector<report::Column> columns{{"policy", report::Align::kLeft}};
  for (const char* name : {"TTFT ms mean", "p50", "p90", "p99", "long p50", "TPOT ms p50", "pause ms p99", "tokens/s",
                           "cached", "over several"}) {
    columns.push_back({name, report::Align::kRight});
  }
  const auto number = [](const Json& value) {
    return value.is_null() ? "" : fmt::format("{:.1f}", value.get<double>());
  };
  const auto of = [&](const Json& values, const char* name) {
    return values.is_null() ? std::string() : number(values.at(name));
  };
  std::vector<std::vector<std::string>> rows;
  for (const Json& policy : suite.at("policies")) {
    const Json& ttft = policy.at("ttft_ms");
    rows.push_back(
        {policy.at("policy").get<std::string>(), of(ttft, "mean"), of(ttft, "p50"), of(ttft, "p90"), of(ttft, "p99"),
         of(policy.at("long_ttft_ms"), "p50"), of(policy.at("tpot_ms"), "p50"),
         of(policy.at("longest_pause_ms"), "p99"), number(policy.at("new_tokens_per_s")),
         fmt::format("{:.0f} %", 100 * policy.at("cached_share").get<double>()),
         fmt::format("{} of {}", policy.at("over_several_ranks").get<int>(), policy.at("requests").get<int>())});
  }
  return report::FormatTable(columns, rows);
}

/// A point for each request: the share of all that had their first token by then.
std::string Plot(const Json& suite, const char* what, const char* label) {
  report::LineChart chart;
  chart.title = fmt::format("{} on {}: {} of requests that arrive over time", suite.at("model").get<std::string>(),
                            suite.at("devices").get<std::string>(), label);
  chart.x_label = "share of the requests, %";
  chart.y_label = fmt::format("{}, ms", label);
  for (const Json& policy : suite.at("policies")) {
    report::Series series{policy.at("policy").get<std::string>(), {}};
    if (policy.at(what).is_null()) continue;
    const auto values = policy.at(what).at("sorted").get<std::vector<double>>();
    for (int percent = 5; percent <= 100; percent += 5) {
      const auto index = static_cast<size_t>(percent * static_cast<double>(values.size() - 1) / 100 + 0.5);
      series.points.emplace_back(percent, values[index]);
    }
    chart.series.push_back(std::move(series));
  }
  return report::LineChartSvg(chart);
}

}  // namespace

int RunServing(const SuiteFlags& flags, const SuiteRequest& request) {
  OutputFiles outputs;
  for (const std::string& model : request.models) outputs.Protect(model);
  const ServingPlan plan = ServingPlanOf(flags, request);
  OutputFile json = outputs.Open("--json", request.json);
  OutputFile ttft;
  OutputFile pauses;
  if (!flags.plots.empty()) {
    const std::filesystem::path folder = flags.plots;
    ttft = outputs.Open("--plots", folder / (plan.name + "-serving-ttft.svg"), Folders::kMake);
    pauses = outputs.Open("--plots", folder / (plan.name + "-serving-pauses.svg"), Folders::kMake);
  }
  const Json suite = RunServingSuite(plan, [](const std::string& line) { WriteOut(line + "\n"); });
  if (json) json.Write(suite.dump(1) + "\n");
  if (ttft) ttft.Write(Plot(suite, "ttft_ms", "time to first token"));
  if (pauses) pauses.Write(Plot(suite, "longest_pause_ms", "longest pause of an answer"));
  WriteOut("\n" + ServingTable(suite));
  return 0;
}

}  // namespace runahead::cli
