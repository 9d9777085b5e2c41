#include "bench_suite.h"

#include <fmt/format.h>

#include <climits>
#include <filesystem>
#include <map>

#include "base/input_file.h"
#include "base/output_file.h"
#include "bench_decode.h"
#include "bench_quality.h"
#include "bench_serving.h"
#include "experiment/paper_suite.h"
#include "flags.h"
#include "model_folder.h"
#include "output.h"
#include "paper_report.h"
#include "runahead/error.h"
#include "suite_json.h"

namespace runahead::cli {
namespace {

constexpr const char* kSuiteContexts = "1024,2048,4096,8192,12288,16384,32768";

SuitePlan SuitePlanOf(const SuiteFlags& flags, const SuiteRequest& request) {
  SuitePlan plan;
  for (const std::string& folder : request.models)
    plan.models.push_back({OpenModel(folder, request.engine), NameOfFolder(folder)});
  plan.engine = request.engine;
  plan.load = LoadEngine;
  plan.contexts =
      ParseIntegers("--contexts", request.contexts.empty() ? kSuiteContexts : request.contexts, 2, INT32_MAX);
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

/// The suite's pictures, each opened before there is anything to draw.
class Plots {
 public:
  /// An empty folder is none. Throws ConfigError for two models whose pictures would have one name.
  Plots(std::filesystem::path folder, OutputFiles& outputs) : folder_(std::move(folder)), outputs_(outputs) {}

  void Open(const std::string& model, const std::vector<std::string>& links) {
    if (folder_.empty()) return;
    for (const std::string& of_links : links) {
      const PlotNames names = PlotNamesOf(model, of_links);
      for (const std::string& name : {names.contexts, names.ranks}) {
        if (files_.contains(name)) {
          throw ConfigError(fmt::format("--plots: {} would be of two, one of them model '{}' with links {}",
                                        (folder_ / name).string(), model, of_links));
        }
        files_[name] = outputs_.Open("--plots", folder_ / name, Folders::kMake);
      }
    }
  }

  /// All that was opened and is in `suite`.
  void Write(const Json& suite) {
    if (folder_.empty()) return;
    for (const auto& [name, svg] : SuitePlots(suite)) files_.at(name).Write(svg);
  }

 private:
  std::filesystem::path folder_;
  OutputFiles& outputs_;
  std::map<std::string, OutputFile> files_;  // key: name in the folder
};

/// Throws ConfigError for a flag whose file the suite would not write.
void CheckOutputs(const SuiteFlags& flags, const SuiteRequest& request) {
  for (const auto& [flag, file] : request.outputs_of_a_bench) {
    if (!file.empty()) throw ConfigError(fmt::format("{}: a suite does not write it, got '{}'", flag, file));
  }
  if (!flags.from.empty() && !request.json.empty()) {
    throw ConfigError(fmt::format("--json: --from runs nothing to write there, got '{}'", request.json));
  }
}

}  // namespace

void AddSuiteFlags(CLI::App& command, SuiteFlags& flags) {
  constexpr int kMostEvaluations = 10000;
  const auto read_name = [&flags](const std::string& text) {
    if (text != "paper" && text != "serving" && text != "decode" && text != "weights" && text != "wire") {
      throw ConfigError(fmt::format("--suite: expected paper, serving, decode, weights or wire, got '{}'", text));
    }
    flags.name = text;
  };
  command
      .add_option_function<std::string>(
          "--suite", read_name,
          "paper: the experiments of the KV-Runahead paper on each --model, with TSP, KVR-E, KVR-S, KVR-P and auto; "
          "--strategies, --topologies, --partitions and the links' flags do not count; serving: requests that arrive "
          "over time, short ones and long ones of --contexts tokens, by three policies; decode: steps of --batch "
          "answers at once, behind prompts of --contexts tokens; weights: the error of each format of weights on "
          "--text, in windows of --contexts tokens; wire: that of each format of rows that travel between the ranks, "
          "each window in a prompt phase but for its last quarter")
      ->type_name("NAME");
  command
      .add_option("--suite-links", flags.links,
                  fmt::format("Links to run the suite on: full, host, link:RATE, rank:RATE [{}]", flags.links))
      ->type_name("A,B,C");
  AddInteger(command, "--probe-context", flags.probe_context, 2, INT32_MAX,
             "Tokens where the suite looks at side traffic and the breakdown [the longest up to 16384]");
  AddInteger(command, "--search-evaluations", flags.search_evaluations, 1, kMostEvaluations,
             fmt::format("Partitions that each of the suite's searches times [{}]", flags.search_evaluations));
  command.add_option("--batch", flags.batch, fmt::format("Answers at once in the decode suite [{}]", flags.batch))
      ->type_name("A,B,C");
  constexpr int kMostRequests = 100'000;
  constexpr double kLongestGapMs = 1e7;
  AddInteger(command, "--requests", flags.requests, 1, kMostRequests,
             fmt::format("Requests of the serving suite [{}]", flags.requests));
  AddNumber(command, "--arrival-gap", flags.arrival_gap_ms, 0, kLongestGapMs,
            "Mean milliseconds between them; 0: a third of a long prompt's time alone [0]");
  constexpr int64_t kMostTextTokens = 100'000'000;
  constexpr int kMostQuestions = 100'000;
  command
      .add_option(
          "--text", flags.text,
          "Text that the weights and wire suites read; - is stdin [with --questions: a log; wire: random tokens]")
      ->type_name("FILE");
  AddInteger(command, "--text-tokens", flags.text_tokens, 2, kMostTextTokens,
             fmt::format("Tokens of it, at most [{}]", flags.text_tokens));
  AddInteger(
      command, "--questions", flags.questions, 0, kMostQuestions,
      "Questions that the weights and wire suites ask about logs of the demo, whose model knows the answers [0]");
  command.add_option("--plots", flags.plots, "Write the suite's pictures into this folder")->type_name("DIR");
  command.add_option("--from", flags.from, "Run nothing: read the suite's --json of an earlier run")
      ->type_name("FILE");
}

int RunSuite(const SuiteFlags& flags, const SuiteRequest& request) {
  CheckOutputs(flags, request);
  if (flags.name == "serving" && flags.from.empty()) return RunServing(flags, request);
  if (flags.name == "decode" && flags.from.empty()) return RunDecode(flags, request);
  if (flags.name == "weights" && flags.from.empty()) return RunWeights(flags, request);
  if (flags.name == "wire" && flags.from.empty()) return RunWire(flags, request);
  OutputFiles outputs;
  Plots plots(flags.plots, outputs);
  if (!flags.from.empty()) {
    outputs.Protect(flags.from);
    const Json suite = ParseJson(ReadInput(flags.from), flags.from);
    CheckSuiteJson(suite, flags.from);
    for (const Json& model : suite.at("models")) plots.Open(model.at("model").get<std::string>(), LinkCases(model));
    plots.Write(suite);
    WriteOut(SuiteTable(suite));
    return 0;
  }
  for (const std::string& model : request.models) outputs.Protect(model);
  OutputFile json = outputs.Open("--json", request.json);
  const SuitePlan plan = SuitePlanOf(flags, request);
  for (const SuiteModel& model : plan.models) plots.Open(model.name, plan.links);
  CheckSuite(plan);
  const Json suite = RunPaperSuite(
      plan, [](const std::string& line) { WriteOut(line + "\n"); },
      [&](const Json& known) {
        if (json && !json.streams()) json.Write(known.dump(1) + "\n");
      });
  if (json.streams()) json.Write(suite.dump(1) + "\n");
  WriteOut(SuiteTable(suite));
  plots.Write(suite);
  return 0;
}

}  // namespace runahead::cli
