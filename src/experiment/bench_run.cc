#include "experiment/bench_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <utility>

#include "base/check.h"
#include "base/median.h"
#include "engine/engine_state.h"
#include "model/flops.h"
#include "tune/requests.h"
#include "worker/sampler.h"

namespace runahead {
namespace {

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
      : requests_(engine, spec, context, plan.decoded_tokens, plan.seed),
        time_run_(plan.time_run),
        random_(plan.seed) {
    const double flops = PromptFlops(spec, context).total();
    for (const Combination& combination : plan.combinations) {
      measurements_.push_back({combination, context, {}, 0, {}, 0, {}, flops, true, 0});
    }
  }

  /// Prefills every combination once and compares it with the first.
  void Check() {
    std::vector<float> expected;
    for (Measurement& measurement : measurements_) {
      const PrefillReport prefill = requests_.Prefill(measurement.combination.options);
      measurement.cuts = prefill.cuts;
      measurement.first_ms = prefill.ttft_ms;
      const std::span<const float> logits = requests_.logits();
      if (expected.empty()) expected.assign(logits.begin(), logits.end());
      measurement.logit_difference = LargestDifference(logits, expected);
      const bool numbers = std::isfinite(measurement.logit_difference);
      measurement.same_token = numbers && LikeliestToken(logits) == LikeliestToken(expected);
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
      const PrefillOptions& options = measurement.combination.options;
      if (!counted) {
        requests_.Prefill(options);
        requests_.Decode();
        continue;
      }
      const Sample<double> sample = Time(i, options);
      measurement.ttft_ms.push_back(sample.value);
      measurement.undisturbed += sample.undisturbed() ? 1 : 0;
      const std::vector<double> token_ms = requests_.Decode();
      measurement.token_ms.insert(measurement.token_ms.end(), token_ms.begin(), token_ms.end());
    }
  }

  [[nodiscard]] const std::vector<Measurement>& measurements() const { return measurements_; }

 private:
  /// TTFT in ms.
  Sample<double> Time(size_t combination, const PrefillOptions& options) {
    if (time_run_) return time_run_(combination, [&] { return requests_.Prefill(options).ttft_ms; });
    const Sample<PrefillReport> run = requests_.PrefillUndisturbed(options);
    return {run.value.ttft_ms, run.seconds, run.stolen_s};
  }

  Requests requests_;
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

double Measurement::MedianMs() const { return MedianOf(ttft_ms); }

double AllowedDifference(const DecoderSpec& spec, DType compute, const std::string& wire) {
  if (wire != Name(WireFormat::kExact)) return std::numeric_limits<double>::infinity();
  constexpr double kRoundingsPerLayer = 8;
  constexpr double kMargin = 4;
  const double roundings = kRoundingsPerLayer * spec.layers;
  return kMargin * (UnitRoundoff(compute) * std::sqrt(roundings) +
                    UnitRoundoff(DType::kF32) * std::sqrt(roundings * static_cast<double>(spec.hidden)));
}

void CheckPlans(const Engine& engine, const BenchPlan& plan) {
  for (const int64_t context : plan.contexts) {
    for (const Combination& combination : plan.combinations) {
      (void)StateOf(engine)->Hold().planner().PlanFor(context, combination.options);
    }
  }
  (void)engine.NewSession(*std::max_element(plan.contexts.begin(), plan.contexts.end()));
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
  Requests requests(engine, spec, context, 0, plan.seed);
  requests.Prefill(options);  // makes room
  options.record_timeline = true;
  return requests.Prefill(options);
}

}  // namespace runahead
