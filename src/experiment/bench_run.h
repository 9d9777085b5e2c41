// Times prompt phases, after checking that each computes what one rank computes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/undisturbed.h"
#include "model/decoder_spec.h"
#include "runahead/engine.h"

namespace runahead {

/// One way to prefill.
struct Combination {
  PrefillOptions options;      // `ranks` is always set
  std::string partition_name;  // the name in the request

  /// "runahead chain auto, 4 ranks".
  [[nodiscard]] std::string ToString() const;
};

/// Times a run of a combination that counts, given its number and what prefills it once and returns TTFT in ms: to
/// get an undisturbed sample, it may do so several times.
using RunTimer = std::function<Sample<double>(size_t, const std::function<double()>&)>;

struct BenchPlan {
  std::vector<int64_t> contexts;
  std::vector<Combination> combinations;  // the first one is a single rank
  int repeats = 5;
  int warmup = 1;
  int decoded_tokens = 0;  // tokens decoded greedily behind each prompt
  uint64_t seed = 0;
  RunTimer time_run;  // empty: the least disturbed run of some seconds, or of GPUs the first one
};

/// One combination at one context length.
struct Measurement {
  Combination combination;
  int64_t context = 0;
  std::vector<int64_t> cuts;
  double first_ms = 0;           // TTFT of the first prompt of this length, the one that is checked
  std::vector<double> ttft_ms;   // TTFT of each repeat, ms
  int undisturbed = 0;           // repeats during which the hypervisor lent no processor to others
  std::vector<double> token_ms;  // time of each token decoded behind a prompt, ms
  double flops = 0;              // FLOPs of the model, causal
  bool same_token = true;        // the greedy first token equals a single rank's
  double logit_difference = 0;   // largest difference from a single rank's logits, over their largest magnitude

  [[nodiscard]] double MedianMs() const;
};

/// The largest logit_difference that rounding explains: four times the errors of about eight roundings to `compute`
/// in each layer and of f32 sums over the hidden features, added up as a random walk. Infinite with a `wire`
/// (EngineOptions) that is not exact, whose error is no mistake.
double AllowedDifference(const DecoderSpec& spec, DType compute, const std::string& wire = "exact");

/// Plans every run and looks for the room of the longest, so that what cannot run is refused before anything is
/// measured. Throws ConfigError.
void CheckPlans(const Engine& engine, const BenchPlan& plan);

/// Runs requests (a prompt and the tokens behind it) of `plan`'s combinations round after round. Each round has an
/// order of its own, so that a drift of the machine and the heat that one leaves behind meet all of them. Prompts are
/// random ids; each is checked first. `on_round` is told the share of the work done.
std::vector<Measurement> RunBench(const Engine& engine, const DecoderSpec& spec, const BenchPlan& plan,
                                  const std::function<void(double)>& on_round);

/// Once more, with its timeline: the fastest combination of several ranks at the last context, or of one rank where
/// there are no others.
PrefillReport RunFastestAgain(const Engine& engine, const DecoderSpec& spec, const BenchPlan& plan,
                              const std::vector<Measurement>& measurements);

}  // namespace runahead
