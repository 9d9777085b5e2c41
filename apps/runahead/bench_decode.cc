#include "bench_decode.h"

#include <fmt/format.h>

#include <climits>

#include "base/output_file.h"
#include "experiment/decode_suite.h"
#include "flags.h"
#include "model/model_loader.h"
#include "model_folder.h"
#include "output.h"
#include "report/table.h"
#include "runahead/error.h"

namespace runahead::cli {
namespace {

constexpr const char* kDecodeContexts = "1024";

DecodePlan DecodePlanOf(const SuiteFlags& flags, const SuiteRequest& request) {
  constexpr int kMostSequences = 4096;
  constexpr int kUsualSteps = 64;
  if (request.models.size() != 1) {
    throw ConfigError(fmt::format("--model: the decode suite takes one, got '{}' too", request.models.at(1)));
  }
  const Model model = OpenModel(request.models.front(), request.engine);
  DecodePlan plan{model, NameOfFolder(request.models.front()), LoadEngine, request.engine, {}, {}};
  for (const int64_t batch : ParseIntegers("--batch", flags.batch, 1, kMostSequences)) {
    plan.batches.push_back(static_cast<int>(batch));
  }
  plan.contexts =
      ParseIntegers("--contexts", request.contexts.empty() ? kDecodeContexts : request.contexts, 1, INT32_MAX);
  plan.steps = request.decoded_tokens > 0 ? request.decoded_tokens : kUsualSteps;
  const int64_t most = ConfigOf(model).spec().max_positions;
  for (const int64_t context : plan.contexts) {
    if (context + plan.steps + 1 > most) {
      throw ConfigError(fmt::format("--contexts: {} tokens and {} steps are more than the model's context of {}",
                                    context, plan.steps, most));
    }
  }
  plan.repeats = request.repeats;
  plan.seed = request.seed;
  return plan;
}

std::string DecodeTable(const Json& suite) {
  std::vector<report::Column> columns;
  for (const char* name : {"sequences", "tokens each", "all first tokens ms", "step ms", "tokens/s", "GB a step",
                           "of copy rate", "second turn ms", "ids as alone"}) {
    columns.push_back({name, report::Align::kRight});
  }
  std::vector<std::vector<std::string>> rows;
  for (const Json& run : suite.at("runs")) {
    const auto second = run.at("second_turn_ms").get<std::vector<double>>();
    rows.push_back({fmt::format("{}", run.at("batch").get<int>()),
                    fmt::format("{}", run.at("context").get<int64_t>()),
                    fmt::format("{:.1f}", run.at("first_tokens_ms_median").get<double>()),
                    fmt::format("{:.3f}", run.at("step_ms_median").get<double>()),
                    fmt::format("{:.0f}", run.at("tokens_per_s").get<double>()),
                    fmt::format("{:.2f}", run.at("bytes").get<double>() / 1e9),
                    run.contains("share_of_copy_rate")
                        ? fmt::format("{:.1f} %", 100 * run.at("share_of_copy_rate").get<double>())
                        : "",
                    second.empty() ? "" : fmt::format("{:.2f}", second.back()),
                    fmt::format("{} of {}", run.at("same_ids").get<int>(), run.at("compared_ids").get<int>())});
  }
  return report::FormatTable(columns, rows);
}

/// Where a layer's time goes, each operation by itself.
std::string Layers(const Json& suite) {
  std::string text;
  for (const Json& run : suite.at("runs")) {
    if (run.at("layer").empty()) continue;
    text += fmt::format("\na layer's part of a step of {} at {} tokens, each operation by itself, us:\n",
                        run.at("batch").get<int>(), run.at("context").get<int64_t>());
    for (const Json& op : run.at("layer")) {
      const double us = op.at("us").get<double>();
      text += fmt::format("  {:<28} {:>8.2f}  {:>5.2f} TB/s\n", op.at("op").get<std::string>(), us,
                          op.at("bytes").get<double>() / us / 1e6);
    }
  }
  return text;
}

}  // namespace

int RunDecode(const SuiteFlags& flags, const SuiteRequest& request) {
  if (!flags.plots.empty()) {
    throw ConfigError(fmt::format("--plots: the decode suite draws none, got '{}'", flags.plots));
  }
  OutputFiles outputs;
  for (const std::string& model : request.models) outputs.Protect(model);
  const DecodePlan plan = DecodePlanOf(flags, request);
  OutputFile json = outputs.Open("--json", request.json);
  const Json suite = RunDecodeSuite(plan, [](const std::string& line) { WriteOut(line + "\n"); });
  if (json) json.Write(suite.dump(1) + "\n");
  if (const double rate = suite.at("copy_rate").get<double>(); rate > 0) {
    WriteOut(fmt::format("memory copies at {:.2f} TB/s\n", rate / 1e12));
  }
  WriteOut("\n" + DecodeTable(suite) + Layers(suite));
  return 0;
}

}  // namespace runahead::cli
