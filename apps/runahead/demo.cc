// `runahead demo`: a long prompt answered by one rank and by several, with the same tokens.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <memory>
#include <optional>
#include <set>

#include "base/output_file.h"
#include "bench_report.h"
#include "command.h"
#include "demo_run.h"
#include "flags.h"
#include "model/model_info.h"
#include "model_folder.h"
#include "ops/devices.h"
#include "output.h"
#include "report/table.h"
#include "report/timeline_svg.h"
#include "report/timeline_text.h"
#include "report/units.h"
#include "runahead/error.h"
#include "tensor/cpu_device.h"

namespace runahead::cli {
namespace {

constexpr const char* kPicture = "runahead-demo.svg";

struct DemoFlags {
  std::string model;
  int64_t tokens = 8000;
  int ranks = 0;  // 0: as many as processors
  int repeats = 5;
  uint64_t seed = 1;
  EngineOptions engine;  // of the several ranks
  PrefillOptions prefill;
  std::optional<std::string> timeline;  // none: kPicture, where the working directory can be written
};

std::vector<int64_t> Chunks(const PrefillReport& prefill) {
  std::vector<int64_t> chunks;
  for (size_t i = 0; i + 1 < prefill.cuts.size(); ++i) chunks.push_back(prefill.cuts[i + 1] - prefill.cuts[i]);
  return chunks;
}

std::string Count(int n, const char* thing) { return fmt::format("{} {}{}", n, thing, n == 1 ? "" : "s"); }

/// "2 ranks on 2 cores", or on GPUs.
std::string RanksOn(const DemoResult& result) {
  if (result.gpus > 0) return fmt::format("{} on {}", Count(result.ranks, "rank"), Count(result.gpus, "GPU"));
  const int cores = std::min(result.ranks * result.threads_per_rank, static_cast<int>(AvailableProcessors().size()));
  return fmt::format("{} on {}", Count(result.ranks, "rank"), Count(cores, "core"));
}

/// The rank whose chunk holds `token`.
size_t OwnerOf(int64_t token, const PrefillReport& prefill) {
  return static_cast<size_t>(std::upper_bound(prefill.cuts.begin(), prefill.cuts.end(), token) -
                             prefill.cuts.begin()) -
         1;
}

std::string Introduction(const std::string& model, const ModelInfo& info, const ModelFacts& facts,
                         const DemoPrompt& prompt) {
  return fmt::format(
      "A small model reads a harbour's log book and answers a question about an early entry.\n\n"
      "model       {} ({}, {:.1f} million parameters, {})\n"
      "prompt      {} tokens of log and question\n"
      "question    {}\n"
      "the answer  {}, stated in tokens {} to {}\n\n",
      model, info.spec.architecture, static_cast<double>(info.weights.parameters) / 1e6,
      ArithmeticText(facts.dtype, facts.weights), report::Grouped(static_cast<int64_t>(prompt.ids.size())),
      prompt.question.text, prompt.question.answer, report::Grouped(prompt.fact_begin),
      report::Grouped(prompt.fact_end - 1));
}

std::string ResultTable(const std::vector<DemoResult>& results) {
  using report::Align;
  std::vector<std::vector<std::string>> rows;
  for (const DemoResult& result : results) {
    const auto [min, max] = std::minmax_element(result.ttft_ms.begin(), result.ttft_ms.end());
    std::string answer = result.answer.text;
    answer.erase(0, std::min(answer.find_first_not_of(' '), answer.size()));
    rows.push_back({RanksOn(result), report::Milliseconds(result.MedianMs()), report::Milliseconds(*min),
                    report::Milliseconds(*max),
                    fmt::format("{:.2f}x", results.front().MedianMs() / result.MedianMs()),
                    fmt::format("\"{}\", {}", answer, result.right ? "right" : "WRONG")});
  }
  return report::FormatTable({{"", Align::kLeft},
                              {fmt::format("TTFT, median of {}", results.front().ttft_ms.size())},
                              {"min"},
                              {"max"},
                              {"speed-up"},
                              {"answer", Align::kLeft}},
                             rows);
}

std::string Details(const DemoPrompt& prompt, const DemoResult& several, const DemoComparison& comparison) {
  const PrefillReport& prefill = several.median;
  const size_t first = OwnerOf(prompt.fact_begin, prefill);
  const size_t last = OwnerOf(prompt.fact_end - 1, prefill);
  const std::string owner =
      first == last ? fmt::format("rank {}", first) : fmt::format("ranks {} to {}", first, last);
  const std::string logits =
      comparison.logit_difference == 0
          ? "the same to the last bit"
          : fmt::format("differ by {:.1e} of the largest, at most", comparison.logit_difference);
  return fmt::format(
      "\npartition   {} tokens ({}, {}): later ranks take fewer, since each token attends to more\n"
      "the answer  read by {}; rank {} gave it, from the KV-cache rows handed over\n"
      "tokens      {}\n"
      "logits      {}\n\n",
      fmt::join(Chunks(prefill), " + "), Name(prefill.partition_kind), Name(prefill.topology), owner,
      prefill.ranks() - 1, comparison.same_tokens ? "the same with both" : "NOT THE SAME", logits);
}

void WriteTimeline(OutputFile& file, const PrefillReport& prefill) {
  report::TimelineSvgOptions options;
  options.title = fmt::format("{} prompt tokens on {}: first token after {}", report::Grouped(prefill.cuts.back()),
                              Count(prefill.ranks(), "rank"), report::Milliseconds(prefill.ttft_ms));
  const std::vector<int64_t> chunks = Chunks(prefill);
  for (size_t rank = 0; rank < chunks.size(); ++rank) {
    options.lanes.push_back(fmt::format("rank {}: {} tokens", rank, report::Grouped(chunks[rank])));
  }
  file.Write(report::TimelineSvg(prefill.timeline, options));
}

/// Does `what` about the picture: one that nobody asked for costs a warning, not the answers, where it cannot be
/// written.
template <typename What>
void TryPicture(const DemoFlags& flags, const What& what) {
  try {
    what();
  } catch (const IoError& error) {
    if (flags.timeline) throw;
    std::fputs(fmt::format("runahead: warning: no picture is drawn: {}\n", error.what()).c_str(), stderr);
  }
}

/// What the several ranks are loaded with. Throws ConfigError for less than two.
EngineOptions OptionsOfSeveral(const DemoFlags& flags) {
  EngineOptions options = flags.engine;
  if (options.devices.empty()) {
    const int processors = static_cast<int>(AvailableProcessors().size());
    options.devices = fmt::format("cpu:{}", flags.ranks > 0 ? flags.ranks : std::clamp(processors, 2, kMostRanks));
  }
  if (options.threads_per_rank == 0 && options.threads_of_rank.empty()) options.threads_per_rank = 1;
  if (ParseDevices(options.devices).size() < 2) {
    throw ConfigError(
        fmt::format("--devices: expected several ranks, to compare them with one, got '{}'", options.devices));
  }
  return options;
}

/// The first of several ranks by itself.
EngineOptions OptionsOfOne(EngineOptions options) {
  const RankDevice first = ParseDevices(options.devices).front();
  options.devices = first.gpu ? fmt::format("cuda:{}", *first.gpu) : "cpu";
  options.link_bandwidth.clear();
  options.rank_bandwidth.clear();
  if (!options.slowdown_of_rank.empty()) options.slowdown_of_rank.resize(1);
  if (!options.threads_of_rank.empty()) options.threads_of_rank.resize(1);
  return options;
}

int DifferentGpus(const std::string& devices) {
  std::set<int> gpus;
  for (const RankDevice& device : ParseDevices(devices)) {
    if (device.gpu) gpus.insert(*device.gpu);
  }
  return static_cast<int>(gpus.size());
}

int RunDemo(const DemoFlags& flags) {
  const std::string folder = flags.model.empty() ? FindDemoModel().string() : flags.model;
  OutputFiles outputs;
  outputs.Protect(folder);
  OutputFile picture;
  TryPicture(flags, [&] { picture = outputs.Open("--timeline", flags.timeline.value_or(kPicture)); });
  const Model model = OpenModel(folder, flags.engine);
  const ModelInfo info = DescribeModel(ConfigOf(model));
  const std::optional<Tokenizer> tokenizer = LoadTokenizer(folder);
  if (!tokenizer) throw IoError(folder + ": the folder has no tokenizer");
  const EngineOptions options = OptionsOfSeveral(flags);
  const EngineOptions options_of_one = OptionsOfOne(options);
  const int ranks = static_cast<int>(ParseDevices(options.devices).size());
  if (flags.tokens > info.spec.max_positions) {
    throw ConfigError(
        fmt::format("--tokens: {} are more than the model's context of {}", flags.tokens, info.spec.max_positions));
  }
  const DemoPrompt prompt = WriteDemoPrompt(*tokenizer, flags.seed, flags.tokens, ranks);

  const Engine several = LoadEngine(model, options);  // first, since it may be refused
  const std::vector<Engine> engines = {LoadEngine(model, options_of_one), several};
  WriteOut(Introduction(folder, info, engines.front().facts(), prompt));
  std::vector<DemoResult> results;
  {
    Progress progress("answering with 1 rank and with several in turn");
    const DemoRun run(*tokenizer, prompt, EndTokens(model, &*tokenizer), flags.prefill);
    results = run.Answer(engines, flags.repeats, [&](double share) { progress.Show(share); });
  }
  results.front().gpus = DifferentGpus(options_of_one.devices);
  results.back().gpus = DifferentGpus(options.devices);
  const DemoComparison comparison = Compare(results.back(), results.front());
  WriteOut(ResultTable(results) + Details(prompt, results.back(), comparison));
  WriteOut(report::TimelineText(results.back().median.timeline));
  TryPicture(flags, [&] {
    if (!picture) return;
    WriteTimeline(picture, results.back().median);
    WriteOut(fmt::format("\nThe same as a picture: {}\n", picture.path().string()));
  });
  const bool all_right = std::all_of(results.begin(), results.end(), [](const DemoResult& r) { return r.right; });
  return all_right && comparison.same_tokens ? 0 : 1;
}

}  // namespace

Action AddDemo(CLI::App& command) {
  constexpr int kMostRepeats = 1000;
  auto flags = std::make_shared<DemoFlags>();
  command.add_option("--model", flags->model, "A folder with a model trained on harbour logs [the demo model]")
      ->type_name("DIR");
  AddInteger(command, "--tokens", flags->tokens, 1, INT32_MAX, "Length of the prompt at most [8000]");
  AddInteger(command, "--ranks", flags->ranks, 2, kMostRanks, "[as many as processors, at least 2]");
  AddInteger(command, "--repeats", flags->repeats, 1, kMostRepeats, "Timed runs of each [5]");
  AddInteger(command, "--seed", flags->seed, 0, INT64_MAX, "Another log with another question [1]");
  AddEngineFlags(command, flags->engine);
  flags->engine.devices.clear();  // --ranks says how many
  command.get_option("--devices")
      ->description("cpu:4 for four CPU ranks, or cuda:0,1 for GPUs, several [CPU ranks, --ranks of them]")
      ->excludes("--ranks");
  command.get_option("--threads-per-rank")
      ->description("Threads of each rank, or a list with one number for each [1]");
  AddPrefillFlags(command, flags->prefill);
  command.add_option("--timeline", flags->timeline, fmt::format("Where the picture goes [{}]", kPicture))
      ->type_name("FILE.svg");
  return [flags] { return RunDemo(*flags); };
}

}  // namespace runahead::cli
