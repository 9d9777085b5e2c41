#include "bench_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "base/check.h"
#include "base/json.h"
#include "base/median.h"
#include "base/units.h"
#include "output.h"
#include "report/line_chart_svg.h"
#include "report/table.h"
#include "report/units.h"

namespace runahead::cli {
namespace {

constexpr double kGiga = 1e9;

double FlopRate(const Measurement& measurement) { return measurement.flops / measurement.MedianMs() * kMsPerSecond; }

bool UsesTopology(const Measurement& measurement) {
  return measurement.combination.options.strategy == Strategy::kRunahead;
}

Json JsonOf(const Measurement& measurement, const BenchReport& report) {
  const PrefillOptions& options = measurement.combination.options;
  Json json = {{"strategy", Name(options.strategy)},
               {"ranks", options.ranks},
               {"context", measurement.context},
               {"cuts", measurement.cuts},
               {"ttft_ms_first", measurement.first_ms},
               {"ttft_ms", measurement.ttft_ms},
               {"ttft_ms_median", measurement.MedianMs()},
               {"undisturbed_runs", measurement.undisturbed},
               {"speed_up", report.SpeedUp(measurement)},
               {"model_flops", measurement.flops},
               {"flop_rate", FlopRate(measurement)},
               {"same_first_token", measurement.same_token},
               {"logit_difference", measurement.logit_difference}};
  if (const std::optional<double> ceiling = report.CeilingOf(measurement)) {
    json["share_of_ceiling"] = FlopRate(measurement) / *ceiling;
  }
  if (!measurement.token_ms.empty()) {
    json["token_ms"] = measurement.token_ms;
    json["tpot_ms_median"] = MedianOf(measurement.token_ms);
  }
  if (UsesTopology(measurement)) {
    json["topology"] = Name(options.topology.value_or(Topology::kChain));
    json["partition"] = measurement.combination.partition_name;
  }
  return json;
}

}  // namespace

std::optional<double> BenchReport::CeilingOf(const Measurement& measurement) const {
  for (const MatmulCeiling& ceiling : ceilings) {
    if (ceiling.ranks == measurement.combination.options.ranks) return ceiling.Best();
  }
  return std::nullopt;
}

double BenchReport::SpeedUp(const Measurement& measurement) const {
  for (const Measurement& other : measurements) {
    if (other.context == measurement.context) return other.MedianMs() / measurement.MedianMs();
  }
  internal::CheckFailed(__FILE__, __LINE__, "a context without measurements");
}

std::vector<const Measurement*> BenchReport::Wrong() const {
  std::vector<const Measurement*> wrong;
  for (const Measurement& measurement : measurements) {
    if (!(measurement.logit_difference <= allowed_difference)) wrong.push_back(&measurement);
  }
  return wrong;
}

std::string ArithmeticText(const std::string& dtype, const std::string& weights) {
  return weights.empty() || weights == "stored" ? dtype : fmt::format("{}, {} weights", dtype, weights);
}

std::string Heading(const BenchReport& report) {
  const std::string arithmetic = ArithmeticText(report.dtype, report.weights);
  std::string kernel = report.dtype == "bf16" ? report.machine.bf16_kernel : report.machine.f32_kernel;
  if (report.weights != "stored") kernel = report.machine.int8_kernel;
  std::string text;
  if (report.device == "cpu") {
    text = fmt::format("{} in {}, {} thread{} per rank, on {} ({} processors, {})\n", report.model, arithmetic,
                       report.threads_per_rank, report.threads_per_rank == 1 ? "" : "s", report.machine.cpu,
                       report.machine.processors, kernel);
  } else {
    text = fmt::format("{} in {} on {}\n", report.model, arithmetic, report.device);
  }
  text += fmt::format("loaded and ready after {:.1f} s\n", report.load_s);
  for (const MatmulCeiling& ceiling : report.ceilings) {
    text +=
        fmt::format("matmul ceiling of {} rank{}: {:.1f} GFLOP/s at best, {:.1f} median of {}, {:.1f} sustained\n",
                    ceiling.ranks, ceiling.ranks == 1 ? "" : "s", ceiling.Best() / kGiga, ceiling.Median() / kGiga,
                    ceiling.rates.size(), ceiling.sustained / kGiga);
    if (ceiling.registers > 0) {
      text += fmt::format("  {:.1f} % of the {:.1f} GFLOP/s that its threads reach from registers\n",
                          100 * ceiling.Best() / ceiling.registers, ceiling.registers / kGiga);
    }
  }
  return text;
}

std::string Table(const BenchReport& report) {
  using report::Align;
  const std::vector<report::Column> columns = {{"context"},
                                               {"strategy", Align::kLeft},
                                               {"topology", Align::kLeft},
                                               {"partition", Align::kLeft},
                                               {"ranks"},
                                               {"first"},
                                               {"TTFT ms"},
                                               {"min"},
                                               {"max"},
                                               {"TPOT ms"},
                                               {"speed-up"},
                                               {"GFLOP/s"},
                                               {"of ceiling"},
                                               {"logits differ"}};
  std::vector<std::vector<std::string>> rows;
  for (const Measurement& measurement : report.measurements) {
    const PrefillOptions& options = measurement.combination.options;
    const auto [min, max] = std::minmax_element(measurement.ttft_ms.begin(), measurement.ttft_ms.end());
    const bool topology = UsesTopology(measurement);
    const std::optional<double> ceiling = report.CeilingOf(measurement);
    rows.push_back({report::Grouped(measurement.context), std::string(Name(options.strategy)),
                    topology ? std::string(Name(options.topology.value_or(Topology::kChain))) : "",
                    topology ? measurement.combination.partition_name : "", std::to_string(options.ranks),
                    fmt::format("{:.2f}", measurement.first_ms), fmt::format("{:.2f}", measurement.MedianMs()),
                    fmt::format("{:.2f}", *min), fmt::format("{:.2f}", *max),
                    measurement.token_ms.empty() ? "" : fmt::format("{:.3f}", MedianOf(measurement.token_ms)),
                    fmt::format("{:.2f}x", report.SpeedUp(measurement)),
                    fmt::format("{:.1f}", FlopRate(measurement) / kGiga),
                    ceiling ? fmt::format("{:.1f} %", 100 * FlopRate(measurement) / *ceiling) : "",
                    fmt::format("{:.1e}{}", measurement.logit_difference, measurement.same_token ? "" : " (token)")});
  }
  return report::FormatTable(columns, rows);
}

std::string ToJson(const BenchReport& report) {
  const MachineFacts& machine = report.machine;
  Json ceilings = Json::array();
  for (const MatmulCeiling& ceiling : report.ceilings) {
    ceilings.push_back({{"ranks", ceiling.ranks},
                        {"flop_rates", ceiling.rates},
                        {"best", ceiling.Best()},
                        {"sustained", ceiling.sustained},
                        {"registers", ceiling.registers},
                        {"median", ceiling.Median()}});
  }
  Json results = Json::array();
  for (const Measurement& measurement : report.measurements) results.push_back(JsonOf(measurement, report));
  Json json = {{"model", report.model},
               {"dtype", report.dtype},
               {"weights", report.weights},
               {"device", report.device},
               {"load_s", report.load_s},
               {"threads_per_rank", report.threads_per_rank},
               {"allowed_logit_difference", report.allowed_difference},
               {"machine",
                {{"cpu", machine.cpu},
                 {"processors", machine.processors},
                 {"memory_bytes", machine.memory_bytes},
                 {"features", machine.features},
                 {"f32_kernel", machine.f32_kernel},
                 {"bf16_kernel", machine.bf16_kernel},
                 {"int8_kernel", machine.int8_kernel}}},
               {"matmul_ceilings", std::move(ceilings)},
               {"results", std::move(results)}};
  if (report.gpu) json["gpu"] = Json::parse(ToJsonText(*report.gpu));
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string ToSvg(const BenchReport& report) {
  report::LineChart chart;
  chart.title = fmt::format("Time to the first token: {} in {}, on {}", NameOfFolder(report.model),
                            ArithmeticText(report.dtype, report.weights), report.machine.cpu);
  chart.x_label = "tokens in the prompt";
  chart.y_label = "TTFT in ms, median";
  std::map<std::string, size_t> index;
  for (const Measurement& measurement : report.measurements) {
    const std::string name = measurement.combination.ToString();
    const auto [at, added] = index.emplace(name, chart.series.size());
    if (added) chart.series.push_back({name, {}});
    chart.series[at->second].points.emplace_back(static_cast<double>(measurement.context), measurement.MedianMs());
  }
  return report::LineChartSvg(chart);
}

}  // namespace runahead::cli
