#include "bench_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>

#include "base/check.h"
#include "base/deadline.h"
#include "engine/engine_state.h"
#include "matmul_ceiling.h"
#include "model/flops.h"

namespace runahead::cli {
namespace {

constexpr double kPatienceS = 2;  // for a run of CPU ranks to be undisturbed

size_t Likeliest(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// The largest |a - b| as a share of the largest |b|; infinite where a is not a number.
double LargestDifference(std::span<const float> a, std::span<const float> b) {
  double difference = 0;
  double magnitude = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double here = std::abs(static_cast<double>(a[i]) - b[i]);
    difference = std::isnan(here) ? INFINITY : std::max(difference, here);
    magnitude = std::max(magnitude, std::abs(static_cast<double>(b[i])));
  }
  return difference / std::max(magnitude, 1e-30);
}

/// The combinations at one context length.
class ContextBench {
 public:
  ContextBench(const Engine& engine, const DecoderSpec& spec, const BenchPlan& plan, int64_t context)
      : decoded_tokens_(static_cast<int>(std::min<int64_t>(plan.decoded_tokens, spec.max_positions - context - 1))),
        session_(engine.NewSession(context + (decoded_tokens_ > 0 ? decoded_tokens_ + 1 : 0))),
        prompt_(RandomPrompt(context, spec.vocab, plan.seed)),
        time_run_(plan.time_run),
        random_(plan.seed) {
    const double flops = PromptFlops(spec, context).total();
    for (const Combination& combination : plan.combinations) {
      measurements_.push_back({combination, context, {}, 0, {}, 0, {}, flops, true, 0});
    }
    if (time_run_) return;
    const double patience_s = engine.state()->on_gpus() ? 0 : kPatienceS;
    time_run_ = [patience_s](size_t, const std::function<double()>& prefill_ms) {
      return LeastDisturbed(prefill_ms, patience_s);
    };
  }

  /// Prefills every combination once and compares it with the first.
  void Check() {
    std::vector<float> expected;
    for (Measurement& measurement : measurements_) {
      const PrefillReport prefill = session_.Prefill(prompt_, measurement.combination.options);
      measurement.cuts = prefill.cuts;
      measurement.first_ms = prefill.ttft_ms;
      const std::span<const float> logits = session_.logits();
      if (expected.empty()) expected.assign(logits.begin(), logits.end());
      measurement.same_token = Likeliest(logits) == Likeliest(expected);
      measurement.logit_difference = LargestDifference(logits, expected);
    }
  }

  /// One more request of every combination, whose times are kept when it is to be counted. In an order of its own:
  /// how warm a device is, and so its clocks, depends on what ran before.
  void Round(bool counted) {
    std::vector<size_t> order(measurements_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_() % i]);
    for (const size_t i : order) {
      Measurement& measurement = measurements_[i];
      const auto prefill_ms = [&] { return session_.Prefill(prompt_, measurement.combination.options).ttft_ms; };
      if (!counted) {
        prefill_ms();
        Decode();
        continue;
      }
      const Sample<double> sample = time_run_(i, prefill_ms);
      measurement.ttft_ms.push_back(sample.value);
      measurement.undisturbed += sample.undisturbed() ? 1 : 0;
      const std::vector<double> token_ms = Decode();
      measurement.token_ms.insert(measurement.token_ms.end(), token_ms.begin(), token_ms.end());
    }
  }

  [[nodiscard]] const std::vector<Measurement>& measurements() const { return measurements_; }

 private:
  /// Decodes behind the prompt; milliseconds of each token.
  std::vector<double> Decode() {
    std::vector<double> token_ms;
    if (decoded_tokens_ <= 0) return token_ms;
    auto token = static_cast<int32_t>(Likeliest(session_.logits()));
    for (int i = 0; i <= decoded_tokens_; ++i) {
      const auto begin = Clock::now();
      token = session_.AppendGreedy(token, i < decoded_tokens_);
      // Of the first one nothing was enqueued ahead.
      if (i > 0) token_ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
    }
    return token_ms;
  }

  int decoded_tokens_;
  Session session_;
  std::vector<int32_t> prompt_;
  RunTimer time_run_;
  std::mt19937_64 random_;
  std::vector<Measurement> measurements_;
};

}  // namespace

std::string Combination::ToString() const {
  std::string text(Name(options.strategy));
  if (options.strategy == Strategy::kRunahead) {
    text += fmt::format(" {} {}", Name(options.topology.value_or(Topology::kChain)), partition_name);
  }
  return text + fmt::format(", {} rank{}", options.ranks, options.ranks == 1 ? "" : "s");
}

std::vector<int32_t> RandomPrompt(int64_t tokens, int64_t vocab, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> prompt(static_cast<size_t>(tokens));
  for (int32_t& id : prompt) id = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab));
  return prompt;
}

double Measurement::MedianMs() const { return MedianOf(ttft_ms); }

double AllowedDifference(const DecoderSpec& spec, DType compute) {
  constexpr double kRoundingsPerLayer = 8;
  constexpr double kMargin = 4;
  const double roundings = kRoundingsPerLayer * spec.layers;
  return kMargin * (UnitRoundoff(compute) * std::sqrt(roundings) +
                    UnitRoundoff(DType::kF32) * std::sqrt(roundings * static_cast<double>(spec.hidden)));
}

std::vector<Measurement> RunBench(const Engine& engine, const DecoderSpec& spec, const BenchPlan& plan,
                                  const std::function<void(double)>& on_round) {
  std::vector<Measurement> all;
  const int rounds = 1 + plan.warmup + plan.repeats;
  const double total = static_cast<double>(rounds) * static_cast<double>(plan.contexts.size());
  double done = 0;
  for (const int64_t context : plan.contexts) {
    ContextBench bench(engine, spec, plan, context);
    bench.Check();
    on_round(++done / total);
    for (int round = 0; round < plan.warmup + plan.repeats; ++round) {
      bench.Round(round >= plan.warmup);
      on_round(++done / total);
    }
    all.insert(all.end(), bench.measurements().begin(), bench.measurements().end());
  }
  return all;
}

PrefillReport RunFastestAgain(const Engine& engine, const DecoderSpec& spec, const BenchPlan& plan,
                              const std::vector<Measurement>& measurements) {
  const int64_t context = measurements.back().context;
  const Measurement* fastest = nullptr;
  for (const Measurement& measurement : measurements) {
    if (measurement.context != context) continue;
    const bool first_of_several = fastest != nullptr && fastest->combination.options.ranks == 1;
    if (fastest == nullptr || first_of_several || measurement.MedianMs() < fastest->MedianMs())
      fastest = &measurement;
  }
  CHECK(fastest != nullptr);
  PrefillOptions options = fastest->combination.options;
  Session session = engine.NewSession(context);
  const std::vector<int32_t> prompt = RandomPrompt(context, spec.vocab, plan.seed);
  session.Prefill(prompt, options);  // makes room
  options.record_timeline = true;
  return session.Prefill(prompt, options);
}

}  // namespace runahead::cli
