// The demo's work: a long log with a question about its beginning, answered by one rank and by several in turn.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "demo/harbour_log.h"
#include "runahead/engine.h"
#include "runahead/generate.h"
#include "runahead/tokenizer.h"

namespace runahead::cli {

/// A prompt whose answer stands near its beginning.
struct DemoPrompt {
  demo::Question question;
  std::vector<int32_t> ids;
  int64_t fact_begin = 0;  // tokens of the prompt that state the answer: all of them in [fact_begin, fact_end)
  int64_t fact_end = 0;
};

/// Writes a log, from `seed`, with a question that make a prompt of at most `tokens` tokens, and nearly as many. The
/// answer stands in the first of `ranks` equal parts where the log has such a question, in its first quarter at
/// least. Throws ConfigError when so few tokens hold no question.
DemoPrompt WriteDemoPrompt(const Tokenizer& tokenizer, uint64_t seed, int64_t tokens, int ranks);

/// What one configuration did.
struct DemoResult {
  int ranks = 0;
  int threads_per_rank = 0;
  int gpus = 0;                 // different ones; 0: the CPU
  std::vector<double> ttft_ms;  // TTFT of each repeat, ms
  PrefillReport median;         // the repeat with the median TTFT, with its timeline
  Generation answer;
  bool right = false;

  [[nodiscard]] double MedianMs() const { return median.ttft_ms; }
};

/// Where the two configurations' outcomes differ.
struct DemoComparison {
  bool same_tokens = false;
  double logit_difference = 0;  // largest difference of the logits, over their largest magnitude
};

/// Answers a prompt with one engine after the other, round after round, so that a drift of the machine meets both.
class DemoRun {
 public:
  /// `prefill` is how several ranks prefill.
  DemoRun(const Tokenizer& tokenizer, const DemoPrompt& prompt, std::vector<int32_t> eos, PrefillOptions prefill)
      : tokenizer_(tokenizer), prompt_(prompt), eos_(std::move(eos)), prefill_(std::move(prefill)) {}

  /// The result of each engine. `on_prefill` is told the share of the work done.
  std::vector<DemoResult> Answer(const std::vector<Engine>& engines, int repeats,
                                 const std::function<void(double)>& on_prefill) const;

 private:
  /// All ranks of an engine take part, to show what they do; its timeline is recorded.
  [[nodiscard]] PrefillOptions OptionsFor(int ranks) const;
  [[nodiscard]] Generation Ask(Session& session, int ranks) const;

  const Tokenizer& tokenizer_;
  const DemoPrompt& prompt_;
  std::vector<int32_t> eos_;
  PrefillOptions prefill_;
};

DemoComparison Compare(const DemoResult& result, const DemoResult& reference);

/// The folder of the demo model: in the source tree, or beside an installed program. Throws IoError naming both when
/// neither is there.
std::filesystem::path FindDemoModel();

}  // namespace runahead::cli
