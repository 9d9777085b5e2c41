// p ranks compute what one rank computes: tokens, logits and the final KV-cache, for every strategy, topology,
// partition, dtype and length.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "engine/engine_state.h"
#include "engine/session_state.h"
#include "link/fault/fault_fabric.h"
#include "link/local/local_fabric.h"
#include "tests/engine/tiny_model.h"

namespace runahead {
namespace {

constexpr int kMaxRanks = 8;
constexpr int kGreedyTokens = 4;
constexpr std::array<int64_t, 7> kLengths{1, 2, 3, 17, 64, 333, 1000};

std::vector<int32_t> RandomPrompt(int64_t tokens, int64_t vocab, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int32_t> draw(0, static_cast<int32_t>(vocab) - 1);
  std::vector<int32_t> prompt(static_cast<size_t>(tokens));
  for (int32_t& token : prompt) token = draw(random);
  return prompt;
}

/// All that a prompt phase and a short continuation leave behind.
struct Outcome {
  std::vector<float> logits;              // of the prompt's last position
  std::vector<std::vector<float>> cache;  // K and V of each layer
  std::vector<int32_t> tokens;            // greedy
  std::vector<float> gaps;                // between the best two logits at each token
};

float LargestMagnitude(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

Outcome RunOnce(const std::shared_ptr<EngineState>& engine, std::span<const int32_t> prompt,
                const PrefillOptions& options) {
  SessionState session(engine, static_cast<int64_t>(prompt.size()) + kGreedyTokens);
  session.Prefill(prompt, options);
  Outcome outcome;
  outcome.logits.assign(session.logits().begin(), session.logits().end());
  for (int layer = 0; layer < engine->decoder().spec().layers; ++layer) {
    outcome.cache.push_back(session.CacheRows(layer, false));
    outcome.cache.push_back(session.CacheRows(layer, true));
  }
  for (int i = 0; i < kGreedyTokens; ++i) {
    std::vector<float> logits(session.logits().begin(), session.logits().end());
    const auto best = std::max_element(logits.begin(), logits.end());
    outcome.tokens.push_back(static_cast<int32_t>(best - logits.begin()));
    std::nth_element(logits.begin(), logits.begin() + 1, logits.end(), std::greater<>());
    outcome.gaps.push_back(logits[0] - logits[1]);
    session.Append(outcome.tokens.back());
  }
  return outcome;
}

void ExpectClose(std::span<const float> actual, std::span<const float> expected, double tolerance, const char* what) {
  ASSERT_EQ(actual.size(), expected.size());
  const double allowed = tolerance * LargestMagnitude(expected);
  double worst = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double difference = std::abs(static_cast<double>(actual[i]) - expected[i]);
    worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
  }
  EXPECT_LE(worst, allowed) << what;
}

/// Tokens must agree up to the first one that was a near tie in one rank's run.
void ExpectSameTokens(const Outcome& actual, const Outcome& expected, double tolerance) {
  for (size_t i = 0; i < expected.tokens.size(); ++i) {
    if (expected.gaps[i] <= 2 * tolerance * LargestMagnitude(expected.logits)) return;
    ASSERT_EQ(actual.tokens[i], expected.tokens[i]) << "greedy token " << i;
  }
}

struct NamedOptions {
  std::string name;
  PrefillOptions options;
};

/// Every strategy, topology and partition on `ranks` ranks; the fractions are drawn from `seed`.
std::vector<NamedOptions> AllOptions(int ranks, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> draw(0.05, 1);
  PartitionRequest manual{PartitionKind::kManual, {}};
  for (int rank = 0; rank < ranks; ++rank) manual.fractions.push_back(draw(random));
  PartitionRequest last_is_tiny{PartitionKind::kManual, std::vector<double>(static_cast<size_t>(ranks), 1.0)};
  last_is_tiny.fractions.back() = 1e-9;  // a chunk of one token

  std::vector<NamedOptions> all;
  for (const Topology topology : {Topology::kChain, Topology::kDirect}) {
    for (const auto& [name, request] : {std::pair{"even", PartitionRequest{PartitionKind::kEven, {}}},
                                        std::pair{"auto", PartitionRequest{PartitionKind::kAuto, {}}},
                                        std::pair{"manual", manual}, std::pair{"one token last", last_is_tiny}}) {
      all.push_back({std::string("runahead ") + std::string(Name(topology)) + " " + name,
                     {Strategy::kRunahead, topology, request, ranks, false}});
    }
  }
  for (const Strategy strategy : {Strategy::kTspDense, Strategy::kTspCausal}) {
    all.push_back({std::string(Name(strategy)), {strategy, Topology::kDirect, {}, ranks, false}});
  }
  return all;
}

class RankInvariance : public testing::TestWithParam<DType> {
 protected:
  // One model for the whole suite; each dtype loads it once.
  static std::shared_ptr<EngineState> EngineOf(DType dtype) {
    static std::map<DType, std::shared_ptr<EngineState>> engines;
    auto& engine = engines[dtype];
    if (!engine) {
      EngineOptions options;
      options.devices = "cpu:8";
      options.threads_per_rank = 1;
      options.dtype = std::string(Name(dtype));
      options.timeout_s = 60;
      engine = LoadEngineState(TinyModelFolder(), options);
    }
    return engine;
  }

  /// A reordered sum of k terms of unit variance differs by about sqrt(k) roundings; a residual stream of a few
  /// layers repeats that a few times, and one flipped rounding of a 16-bit activation is one unit of it.
  static double Tolerance(DType dtype) { return UnitRoundoff(dtype) * (dtype == DType::kF32 ? 64 : 16); }
};

TEST_P(RankInvariance, EveryStrategyComputesWhatOneRankComputes) {
  const auto engine = EngineOf(GetParam());
  const double tolerance = Tolerance(GetParam());
  const int64_t vocab = engine->decoder().spec().vocab;
  for (const int64_t length : kLengths) {
    const std::vector<int32_t> prompt = RandomPrompt(length, vocab, static_cast<unsigned>(length));
    const Outcome single = RunOnce(engine, prompt, {Strategy::kSingle, Topology::kChain, {}, 0, false});
    for (int ranks = 1; ranks <= kMaxRanks; ++ranks) {
      for (const auto& [name, options] : AllOptions(ranks, static_cast<unsigned>(length * 10 + ranks))) {
        SCOPED_TRACE(testing::Message() << name << ", " << ranks << " ranks, " << length << " tokens");
        const Outcome several = RunOnce(engine, prompt, options);
        ExpectClose(several.logits, single.logits, tolerance, "logits");
        for (size_t i = 0; i < single.cache.size(); ++i) {
          ExpectClose(several.cache[i], single.cache[i], tolerance, i % 2 == 0 ? "keys" : "values");
        }
        ExpectSameTokens(several, single, tolerance);
        if (HasFailure()) return;  // one report is enough
      }
    }
  }
}

// Links that deliver late and out of step change nothing but the time.
TEST_P(RankInvariance, HoldsOnJitteredLinks) {
  const auto engine = EngineOf(GetParam());
  const std::vector<int32_t> prompt = RandomPrompt(97, engine->decoder().spec().vocab, 5);
  const Outcome single = RunOnce(engine, prompt, {Strategy::kSingle, Topology::kChain, {}, 0, false});
  for (unsigned seed = 0; seed < 10; ++seed) {
    Faults faults;
    faults.seed = seed;
    faults.max_delay = std::chrono::milliseconds(3);
    engine->SetFabric(MakeFaultFabric(MakeLocalFabric(engine->ranks()), faults));
    for (const auto& [name, options] : AllOptions(2 + static_cast<int>(seed % 4), seed)) {
      SCOPED_TRACE(testing::Message() << name << ", seed " << seed);
      ExpectClose(RunOnce(engine, prompt, options).logits, single.logits, Tolerance(GetParam()), "logits");
    }
  }
  engine->RenewFabric();
}

class FamilyInvariance : public testing::TestWithParam<const char*> {};

/// Rows of the cache that a later query sees, [first, n): the others may not have travelled.
std::vector<float> VisibleRows(const std::vector<float>& rows, int64_t n, int64_t window) {
  const int64_t first = window == 0 ? 0 : std::max<int64_t>(0, n - window + 1);
  const int64_t row = std::ssize(rows) / n;
  return {rows.begin() + first * row, rows.end()};
}

TEST_P(FamilyInvariance, EveryStrategyComputesWhatOneRankComputes) {
  EngineOptions engine_options;
  engine_options.devices = "cpu:4";
  engine_options.threads_per_rank = 1;
  engine_options.dtype = "f32";
  const auto engine = LoadEngineState(TinyModelFolder(GetParam()), engine_options);
  const DecoderSpec& spec = engine->decoder().spec();
  const double tolerance = UnitRoundoff(DType::kF32) * 64;
  for (const int64_t length : {5, 100, 333}) {
    const std::vector<int32_t> prompt = RandomPrompt(length, spec.vocab, static_cast<unsigned>(length));
    const Outcome single = RunOnce(engine, prompt, {Strategy::kSingle, Topology::kChain, {}, 0, false});
    for (const int ranks : {2, 3, 4}) {
      for (const auto& [name, options] : AllOptions(ranks, static_cast<unsigned>(length + ranks))) {
        SCOPED_TRACE(testing::Message() << name << ", " << ranks << " ranks, " << length << " tokens");
        const Outcome several = RunOnce(engine, prompt, options);
        ExpectClose(several.logits, single.logits, tolerance, "logits");
        for (size_t i = 0; i < single.cache.size(); ++i) {
          const int64_t window = spec.window(static_cast<int>(i / 2));
          ExpectClose(VisibleRows(several.cache[i], length, window), VisibleRows(single.cache[i], length, window),
                      tolerance, i % 2 == 0 ? "keys" : "values");
        }
        ExpectSameTokens(several, single, tolerance);
        if (HasFailure()) return;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyInvariance,
                         testing::Values("tiny-mistral", "tiny-qwen2", "tiny-qwen3", "tiny-phi3", "tiny-gemma2",
                                         "tiny-falcon", "tiny-falcon-40b", "tiny-falcon-rw", "tiny-gpt-neox"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

INSTANTIATE_TEST_SUITE_P(DTypes, RankInvariance, testing::Values(DType::kF32, DType::kBF16, DType::kF16),
                         [](const auto& dtype) { return std::string(Name(dtype.param)); });

}  // namespace
}  // namespace runahead
