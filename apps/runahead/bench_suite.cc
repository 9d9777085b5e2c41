#include "bench_suite.h"

#include <fmt/format.h>

#include <climits>
#include <filesystem>

#include "base/input_file.h"
#include "base/output_file.h"
#include "experiment/paper_suite.h"
#include "flags.h"
#include "model_folder.h"
#include "output.h"
#include "paper_report.h"
#include "runahead/error.h"
#include "suite_json.h"

namespace runahead::cli {
namespace {

constexpr int kMostRanks = 256;
constexpr const char* kContexts = "1024,2048,4096,8192,12288,16384,32768";

SuitePlan PlanOf(const SuiteFlags& flags, const SuiteRequest& request) {
  SuitePlan plan;
  plan.models = request.models;
  plan.engine = request.engine;
  plan.load = LoadEngine;
  plan.contexts = ParseIntegers("--contexts", request.contexts.empty() ? kContexts : request.contexts, 2, INT32_MAX);
  if (!request.ranks.empty()) plan.ranks = ParseIntegers("--ranks", request.ranks, 1, kMostRanks);
  plan.links = SplitList("--suite-links", flags.links);
  plan.probe_context = flags.probe_context;
  plan.repeats = request.repeats;
  plan.warmup = request.warmup;
  plan.decoded_tokens = request.decoded_tokens;
  plan.search_evaluations = flags.search_evaluations;
  plan.seed = request.seed;
  return plan;
}

void WritePlots(const Json& suite, OutputFiles& outputs, const std::filesystem::path& folder) {
  if (folder.empty()) return;
  for (const auto& [name, svg] : SuitePlots(suite)) {
    outputs.Open("--plots", folder / name, Folders::kMake).Write(svg);
  }
}

}  // namespace

void AddSuiteFlags(CLI::App& command, SuiteFlags& flags) {
  constexpr int kMostEvaluations = 10000;
  const auto read_name = [&flags](const std::string& text) {
    if (text != "paper") throw ConfigError(fmt::format("--suite: expected paper, got '{}'", text));
    flags.name = text;
  };
  command
      .add_option_function<std::string>(
          "--suite", read_name,
          "paper: the experiments of the KV-Runahead paper on each --model, with TSP, KVR-E, KVR-S, KVR-P and auto; "
          "--strategies, --topologies, --partitions and the links' flags do not count")
      ->type_name("NAME");
  command
      .add_option("--suite-links", flags.links,
                  fmt::format("Links to run the suite on: full, host, link:RATE, rank:RATE [{}]", flags.links))
      ->type_name("A,B,C");
  AddInteger(command, "--probe-context", flags.probe_context, 2, INT32_MAX,
             "Tokens where the suite looks at side traffic and the breakdown [the longest up to 16384]");
  AddInteger(command, "--search-evaluations", flags.search_evaluations, 1, kMostEvaluations,
             fmt::format("Partitions that each of the suite's searches times [{}]", flags.search_evaluations));
  command.add_option("--plots", flags.plots, "Write the suite's pictures into this folder")->type_name("DIR");
  command.add_option("--from", flags.from, "Run nothing: read the suite's --json of an earlier run")
      ->type_name("FILE");
}

int RunSuite(const SuiteFlags& flags, const SuiteRequest& request) {
  OutputFiles outputs;
  if (!flags.from.empty()) {
    outputs.Protect(flags.from);
    const Json suite = ParseJson(ReadInput(flags.from), flags.from);
    CheckSuiteJson(suite, flags.from);
    WritePlots(suite, outputs, flags.plots);
    WriteOut(SuiteTable(suite));
    return 0;
  }
  for (const std::string& model : request.models) outputs.Protect(model);
  OutputFile json = outputs.Open("--json", request.json);
  if (!flags.plots.empty()) OutputFile(std::filesystem::path(flags.plots) / "plot.svg", Folders::kMake);
  const SuitePlan plan = PlanOf(flags, request);
  CheckSuite(plan);
  const Json suite = RunPaperSuite(
      plan, [](const std::string& line) { WriteOut(line + "\n"); },
      [&](const Json& known) {
        if (json && !json.streams()) json.Write(known.dump(1) + "\n");
      });
  if (json.streams()) json.Write(suite.dump(1) + "\n");
  WriteOut(SuiteTable(suite));
  WritePlots(suite, outputs, flags.plots);
  return 0;
}

}  // namespace runahead::cli
