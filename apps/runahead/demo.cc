// `runahead demo`: a long prompt answered by one rank and by several, with the same tokens.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <memory>
#include <optional>

#include "base/output_file.h"
#include "command.h"
#include "demo_run.h"
#include "flags.h"
#include "model/model_info.h"
#include "model_folder.h"
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

struct Flags {
  std::string model;
  int64_t tokens = 8000;
  int ranks = 0;  // 0: as many as processors
  int repeats = 5;
  uint64_t seed = 1;
  std::string dtype;
  std::optional<std::string> timeline;  // none: kPicture, where the working directory can be written
};

std::vector<int64_t> Chunks(const PrefillReport& prefill) {
  std::vector<int64_t> chunks;
  for (size_t i = 0; i + 1 < prefill.cuts.size(); ++i) chunks.push_back(prefill.cuts[i + 1] - prefill.cuts[i]);
  return chunks;
}

std::string Count(int n, const char* thing) { return fmt::format("{} {}{}", n, thing, n == 1 ? "" : "s"); }

/// "2 ranks on 2 cores".
std::string RanksOnCores(int ranks) {
  const int cores = std::min(ranks, static_cast<int>(AvailableProcessors().size()));
  return fmt::format("{} on {}", Count(ranks, "rank"), Count(cores, "core"));
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
      model, info.spec.architecture, static_cast<double>(info.weights.parameters) / 1e6, facts.dtype,
      report::Grouped(static_cast<int64_t>(prompt.ids.size())), prompt.question.text, prompt.question.answer,
      report::Grouped(prompt.fact_begin), report::Grouped(prompt.fact_end - 1));
}

std::string ResultTable(const std::vector<DemoResult>& results) {
  using report::Align;
  std::vector<std::vector<std::string>> rows;
  for (const DemoResult& result : results) {
    const auto [min, max] = std::minmax_element(result.ttft_ms.begin(), result.ttft_ms.end());
    std::string answer = result.answer.text;
    answer.erase(0, std::min(answer.find_first_not_of(' '), answer.size()));
    rows.push_back({RanksOnCores(result.ranks), report::Milliseconds(result.MedianMs()), report::Milliseconds(*min),
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
void TryPicture(const Flags& flags, const What& what) {
  try {
    what();
  } catch (const IoError& error) {
    if (flags.timeline) throw;
    std::fputs(fmt::format("runahead: warning: no picture is drawn: {}\n", error.what()).c_str(), stderr);
  }
}

Engine LoadRanks(const std::string& model, const Flags& flags, int ranks) {
  EngineOptions options;
  options.devices = fmt::format("cpu:{}", ranks);
  options.threads_per_rank = 1;
  options.dtype = flags.dtype;
  return LoadEngine(model, options);
}

int Run(const Flags& flags) {
  const std::string model = flags.model.empty() ? FindDemoModel().string() : flags.model;
  OutputFiles outputs;
  outputs.Protect(model);
  OutputFile picture;
  TryPicture(flags, [&] { picture = outputs.Open("--timeline", flags.timeline.value_or(kPicture)); });
  const ModelInfo info = DescribeModel(model);
  const std::optional<Tokenizer> tokenizer = LoadTokenizer(model);
  if (!tokenizer) throw IoError(model + ": the folder has no tokenizer");
  const int ranks =
      flags.ranks > 0 ? flags.ranks : std::clamp(static_cast<int>(AvailableProcessors().size()), 2, 256);
  if (flags.tokens > info.spec.max_positions) {
    throw ConfigError(
        fmt::format("--tokens: {} are more than the model's context of {}", flags.tokens, info.spec.max_positions));
  }
  const DemoPrompt prompt = WriteDemoPrompt(*tokenizer, flags.seed, flags.tokens, ranks);

  const std::vector<Engine> engines = {LoadRanks(model, flags, 1), LoadRanks(model, flags, ranks)};
  WriteOut(Introduction(model, info, engines.front().facts(), prompt));
  std::vector<DemoResult> results;
  {
    Progress progress("answering with 1 rank and with several in turn");
    const DemoRun run(*tokenizer, prompt, EndTokens(model, &*tokenizer));
    results = run.Answer(engines, flags.repeats, [&](double share) { progress.Show(share); });
  }
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
  constexpr int kMostRanks = 256;
  constexpr int kMostRepeats = 1000;
  auto flags = std::make_shared<Flags>();
  command.add_option("--model", flags->model, "A folder with a model trained on harbour logs [the demo model]")
      ->type_name("DIR");
  AddInteger(command, "--tokens", flags->tokens, 1, INT32_MAX, "Length of the prompt at most [8000]");
  AddInteger(command, "--ranks", flags->ranks, 2, kMostRanks, "[as many as processors, at least 2]");
  AddInteger(command, "--repeats", flags->repeats, 1, kMostRepeats, "Timed runs of each [5]");
  AddInteger(command, "--seed", flags->seed, 0, INT64_MAX, "Another log with another question [1]");
  command.add_option("--dtype", flags->dtype, "f32, bf16 or f16 [the weights' own where this CPU has it]")
      ->type_name("DTYPE");
  command.add_option("--timeline", flags->timeline, fmt::format("Where the picture goes [{}]", kPicture))
      ->type_name("FILE.svg");
  return [flags] { return Run(*flags); };
}

}  // namespace runahead::cli
