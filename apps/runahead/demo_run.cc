#include "demo_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/source_dir.h"
#include "runahead/error.h"

namespace runahead::cli {
namespace {

constexpr int kAnswerTokens = 24;

int64_t CountTokens(const Tokenizer& tokenizer, std::string_view text) {
  return static_cast<int64_t>(tokenizer.Encode(text).size());
}

/// The first of the questions whose answer ends within the first `share` of the log; otherwise the earliest.
const demo::Question& Choose(const std::vector<demo::Question>& questions, size_t log_bytes, double share) {
  const auto limit = static_cast<size_t>(share * static_cast<double>(log_bytes));
  const auto early = std::find_if(questions.begin(), questions.end(),
                                  [&](const demo::Question& question) { return question.fact_end <= limit; });
  if (early != questions.end()) return *early;
  return *std::min_element(questions.begin(), questions.end(),
                           [](const demo::Question& a, const demo::Question& b) { return a.fact_end < b.fact_end; });
}

/// A path from the working directory when it leads down, the same path otherwise.
std::filesystem::path Shortest(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::path relative = std::filesystem::proximate(path, error);
  return error || relative.native().starts_with("..") ? path : relative;
}

}  // namespace

DemoPrompt WriteDemoPrompt(const Tokenizer& tokenizer, uint64_t seed, int64_t tokens, int ranks) {
  constexpr int kTries = 6;
  constexpr double kUsualBytesPerToken = 3.9;
  constexpr double kCloseEnough = 0.99;
  DemoPrompt longest;
  double bytes = kUsualBytesPerToken * static_cast<double>(tokens);
  for (int i = 0; i < kTries; ++i) {
    const demo::HarbourLog log = demo::WriteHarbourLog(seed, static_cast<size_t>(bytes));
    const std::vector<demo::Question> questions = demo::FirstQuarterQuestions(log);
    if (questions.empty()) break;
    DemoPrompt prompt;
    prompt.question = Choose(questions, log.text.size(), 1.0 / ranks);
    prompt.ids = tokenizer.Encode(demo::PromptFor(log, prompt.question));
    const double share = static_cast<double>(prompt.ids.size()) / static_cast<double>(tokens);
    if (share <= 1 && prompt.ids.size() > longest.ids.size()) {
      const std::string_view text = log.text;
      prompt.fact_begin = CountTokens(tokenizer, text.substr(0, prompt.question.fact_begin));
      prompt.fact_end = CountTokens(tokenizer, text.substr(0, prompt.question.fact_end));
      longest = std::move(prompt);
    }
    if (share <= 1 && share >= kCloseEnough) break;
    bytes *= (1 + kCloseEnough) / 2 / share;
  }
  if (longest.ids.empty()) {
    throw ConfigError(fmt::format("--tokens: {} tokens are too few for a log with a question", tokens));
  }
  return longest;
}

PrefillOptions DemoRun::OptionsFor(int ranks) const {
  PrefillOptions options = ranks > 1 ? prefill_ : PrefillOptions();
  options.ranks = ranks;
  options.record_timeline = true;
  return options;
}

Generation DemoRun::Ask(Session& session, int ranks) const {
  GenerationOptions options;
  options.max_new_tokens = kAnswerTokens;
  options.eos = eos_;
  options.stop = {".", "\n"};
  return Generate(session, &tokenizer_, prompt_.ids, OptionsFor(ranks), options);
}

std::vector<DemoResult> DemoRun::Answer(const std::vector<Engine>& engines, int repeats,
                                        const std::function<void(double)>& on_prefill) const {
  const auto total = static_cast<double>(engines.size()) * (repeats + 1);
  double done = 0;
  std::vector<Session> sessions;
  std::vector<DemoResult> results;
  std::vector<std::vector<PrefillReport>> reports(engines.size());
  for (const Engine& engine : engines) {
    sessions.push_back(engine.NewSession(static_cast<int64_t>(prompt_.ids.size()) + kAnswerTokens));
    DemoResult& result = results.emplace_back();
    result.ranks = engine.ranks();
    result.threads_per_rank = engine.threads_per_rank();
    result.answer = Ask(sessions.back(), engine.ranks());  // also the warm-up
    result.right = demo::IsRightAnswer(prompt_.question, result.answer.text);
    on_prefill(++done / total);
  }
  for (int repeat = 0; repeat < repeats; ++repeat) {
    for (size_t i = 0; i < engines.size(); ++i) {
      reports[i].push_back(sessions[i].Prefill(prompt_.ids, OptionsFor(engines[i].ranks())));
      results[i].ttft_ms.push_back(reports[i].back().ttft_ms);
      on_prefill(++done / total);
    }
  }
  for (size_t i = 0; i < engines.size(); ++i) {
    std::sort(reports[i].begin(), reports[i].end(),
              [](const PrefillReport& a, const PrefillReport& b) { return a.ttft_ms < b.ttft_ms; });
    results[i].median = std::move(reports[i][reports[i].size() / 2]);
  }
  return results;
}

DemoComparison Compare(const DemoResult& result, const DemoResult& reference) {
  DemoComparison comparison;
  comparison.same_tokens = result.answer.ids == reference.answer.ids;
  double magnitude = 0;
  const std::vector<float>& expected = reference.answer.prompt_logits;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(static_cast<double>(result.answer.prompt_logits[i]) - expected[i]);
    comparison.logit_difference = std::max(comparison.logit_difference, difference);
    magnitude = std::max(magnitude, std::abs(static_cast<double>(expected[i])));
  }
  if (magnitude > 0) comparison.logit_difference /= magnitude;
  return comparison;
}

std::filesystem::path FindDemoModel() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path installed =
      program.parent_path().parent_path() / "share" / "runahead" / "models" / "demo";
  const std::filesystem::path source = std::filesystem::path(SourceDir()) / "models" / "demo";
  for (const std::filesystem::path& folder : {installed, source}) {
    if (std::filesystem::exists(folder / "config.json", error)) return Shortest(folder);
  }
  throw IoError(fmt::format("the demo model is neither in {} nor in {}; --model names its folder", installed.string(),
                            source.string()));
}

}  // namespace runahead::cli
