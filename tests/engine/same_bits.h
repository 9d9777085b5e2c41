// The same bits, whoever computed them: what one rank with one thread leaves behind against other ranks, threads,
// strategies and topologies, against prompts in two parts and against decoding.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "model/exchange.h"
#include "model/workspace.h"
#include "ops/ops.h"
#include "tests/engine/outcome.h"
#include "tests/engine/tiny_model.h"

namespace runahead {

/// One way to compute a prompt, and the point where the prompt is cut for the two other ways.
struct Situation {
  std::string preset;  // of make-model
  DType dtype = DType::kF32;
  int64_t length = 1;
  int ranks = 1;    // 1 to kMostRanks
  int threads = 1;  // of each rank
  unsigned seed = 0;
  size_t option = 0;  // of AllOptions, modulo their number
  int64_t cut = 1;    // 1 to length - 1, or unused
  WeightFormat weights = WeightFormat::kStored;

  [[nodiscard]] std::string Name() const {
    return preset + " " + std::string(runahead::Name(dtype)) + ", " + std::string(runahead::Name(weights)) +
           " weights, " + std::to_string(length) + " tokens, cut at " + std::to_string(cut) + ", " +
           std::to_string(ranks) + " ranks of " + std::to_string(threads) + " threads, seed " + std::to_string(seed);
  }
};

inline constexpr int kMostRanks = 8;

/// Engines of kMostRanks ranks, loaded when first asked for; at most a few at a time.
class Engines {
 public:
  std::shared_ptr<EngineState> Of(const std::string& preset, DType dtype, int threads, WeightFormat weights) {
    constexpr size_t kAtOnce = 4;
    const auto key = std::tuple(preset, dtype, threads, weights);
    if (const auto found = engines_.find(key); found != engines_.end()) return found->second;
    if (engines_.size() >= kAtOnce) engines_.clear();
    EngineOptions options;
    options.devices = "cpu:" + std::to_string(kMostRanks);
    options.threads_per_rank = threads;
    options.dtype = std::string(Name(dtype));
    options.weights = Name(weights);
    options.timeout_s = 300;
    return engines_[key] = LoadEngineState(TinyModelFolder(preset), options);
  }

 private:
  std::map<std::tuple<std::string, DType, int, WeightFormat>, std::shared_ptr<EngineState>> engines_;
};

/// Prefills the first `cut` tokens and appends the others one by one.
inline PhaseOutcome DecodeFrom(const std::shared_ptr<EngineState>& engine, const std::vector<int32_t>& prompt,
                               int64_t cut) {
  SessionState session(engine, std::ssize(prompt));
  const std::span<const int32_t> tokens(prompt);
  session.Prefill(tokens.first(static_cast<size_t>(cut)), {Strategy::kSingle, Topology::kChain, {}, 0, false});
  for (const int32_t token : tokens.subspan(static_cast<size_t>(cut))) session.Append(token);
  PhaseOutcome outcome;
  outcome.logits.assign(session.logits().begin(), session.logits().end());
  for (int layer = 0; layer < engine->decoder().spec().layers; ++layer) {
    outcome.cache.push_back(session.CacheRows(layer, false));
    outcome.cache.push_back(session.CacheRows(layer, true));
  }
  return outcome;
}

/// Two forward passes, of the tokens before `cut` and of those from there on, by `threads` threads.
inline PhaseOutcome InTwoPasses(EngineState& engine, const std::vector<int32_t>& prompt, int64_t cut, int threads) {
  const Decoder& decoder = engine.decoder();
  const int64_t n = std::ssize(prompt);
  Device& device = engine.rank(0).ops().device();
  const std::unique_ptr<Ops> ops = MakeCpuOps(device, threads);
  const std::unique_ptr<Stream> stream = device.NewStream();
  const PositionTables tables = decoder.MakePositions(*ops, n, decoder.spec().rope.IsLong(n));
  KvCache cache(device, decoder.spec().kv_shape(decoder.compute_dtype()), n);
  Workspace workspace(device, decoder.spec(), decoder.compute_dtype(), n);
  const std::span<const int32_t> tokens(prompt);
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, cut}, {cut, n}}) {
    const Chunk chunk{.tokens = tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                      .begin = begin,
                      .tables = &tables,
                      .cache = cache};
    EXPECT_TRUE(decoder.Forward(chunk, workspace, *ops, *stream).ok());
  }
  PhaseOutcome outcome;
  const float* logits = workspace.Logits(1).As<float>();
  outcome.logits.assign(logits, logits + decoder.spec().vocab);
  for (int layer = 0; layer < decoder.spec().layers; ++layer) {
    const KvSpan rows = cache.Span(layer, 0, n);
    for (const TensorView& view : {rows.k, rows.v}) {
      std::vector<float>& values = outcome.cache.emplace_back();
      Dispatch(view.dtype(), [&](auto zero) {
        const auto* data = view.As<decltype(zero)>();
        for (int64_t i = 0; i < view.shape().elements(); ++i) values.push_back(static_cast<float>(data[i]));
      });
    }
  }
  return outcome;
}

/// Empty where the situation leaves the same bits as one rank with one thread; else what differs.
inline std::string Difference(Engines& engines, const Situation& s) {
  const auto one = engines.Of(s.preset, s.dtype, 1, s.weights);
  const DecoderSpec& spec = one->decoder().spec();
  const std::vector<int32_t> prompt = RandomPrompt(s.length, spec.vocab, s.seed);
  const PhaseOutcome expected = RunOnce(one, prompt, {Strategy::kSingle, Topology::kChain, {}, 0, false});
  const auto several = engines.Of(s.preset, s.dtype, s.threads, s.weights);
  const std::vector<NamedOptions> all = AllOptions(s.ranks, s.seed);
  const NamedOptions& named = all[s.option % all.size()];
  const auto report = [&](const std::string& how, const PhaseOutcome& actual) {
    const std::string difference = FirstDifference(actual, expected, spec, s.length);
    return difference.empty() ? "" : s.Name() + ", " + how + ": " + difference;
  };
  std::string difference = report(named.name, RunOnce(several, prompt, named.options));
  if (!difference.empty() || s.length < 2) return difference;
  difference = report("in two passes", InTwoPasses(*several, prompt, s.cut, s.threads));
  if (!difference.empty()) return difference;
  constexpr int64_t kMostDecoded = 60;  // of long prompts only the end: decoding goes token by token
  return report("decoded", DecodeFrom(several, prompt, std::max(s.cut, s.length - kMostDecoded)));
}

}  // namespace runahead
