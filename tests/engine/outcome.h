// What a prompt phase leaves behind, and every way to run one: for tests that compare them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "engine/engine_state.h"
#include "engine/session_state.h"

namespace runahead {

inline constexpr int kGreedyTokens = 4;

inline std::vector<int32_t> RandomPrompt(int64_t tokens, int64_t vocab, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int32_t> draw(0, static_cast<int32_t>(vocab) - 1);
  std::vector<int32_t> prompt(static_cast<size_t>(tokens));
  for (int32_t& token : prompt) token = draw(random);
  return prompt;
}

/// All that a prompt phase and a short continuation leave behind.
struct PhaseOutcome {
  std::vector<float> logits;              // logits of the prompt's last position
  std::vector<std::vector<float>> cache;  // K and V of each layer
  std::vector<int32_t> tokens;            // greedy tokens
  std::vector<float> gaps;                // distance of the best two logits at each token
  std::vector<std::vector<float>> later;  // logits of the continuation's tokens
};

inline float LargestMagnitude(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

inline PhaseOutcome RunOnce(const std::shared_ptr<EngineState>& engine, std::span<const int32_t> prompt,
                            const PrefillOptions& options) {
  SessionState session(engine, static_cast<int64_t>(prompt.size()) + kGreedyTokens);
  session.Prefill(prompt, options);
  PhaseOutcome outcome;
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
    outcome.later.emplace_back(session.logits().begin(), session.logits().end());
  }
  return outcome;
}

inline void ExpectClose(std::span<const float> actual, std::span<const float> expected, double tolerance,
                        const char* what) {
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
inline void ExpectSameTokens(const PhaseOutcome& actual, const PhaseOutcome& expected, double tolerance) {
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
inline std::vector<NamedOptions> AllOptions(int ranks, unsigned seed) {
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

/// Rows of the cache that a later query sees, [first, n): the others may not have travelled.
inline std::vector<float> VisibleRows(const std::vector<float>& rows, int64_t n, int64_t window) {
  const int64_t first = window == 0 ? 0 : std::max<int64_t>(0, n - window + 1);
  const int64_t row = std::ssize(rows) / n;
  return {rows.begin() + first * row, rows.end()};
}

/// Empty where all logits and all rows of the cache that later queries see are equal bit for bit; else what differs.
inline std::string FirstDifference(const PhaseOutcome& actual, const PhaseOutcome& expected, const DecoderSpec& spec,
                                   int64_t length) {
  const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  };
  for (size_t i = 0; i < expected.cache.size(); ++i) {
    const int64_t window = spec.window(static_cast<int>(i / 2));
    if (!same(VisibleRows(actual.cache.at(i), length, window), VisibleRows(expected.cache[i], length, window))) {
      return std::string(i % 2 == 0 ? "keys" : "values") + " of layer " + std::to_string(i / 2);
    }
  }
  if (!same(actual.logits, expected.logits)) return "logits of the prompt";
  for (size_t i = 0; i < std::min(actual.later.size(), expected.later.size()); ++i) {
    if (!same(actual.later[i], expected.later[i])) return "logits of decoded token " + std::to_string(i);
  }
  return "";
}

}  // namespace runahead
