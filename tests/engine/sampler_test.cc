#include "worker/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "runahead/error.h"

namespace runahead {
namespace {

constexpr int kDraws = 20000;

std::map<int32_t, double> Frequencies(const SamplingOptions& options, std::span<const float> logits) {
  Sampler sampler(options);
  std::map<int32_t, double> frequencies;
  for (int i = 0; i < kDraws; ++i) frequencies[sampler.Draw(logits)] += 1.0 / kDraws;
  return frequencies;
}

/// Five standard deviations of a frequency of `kDraws` draws.
double Slack(double probability) { return 5 * std::sqrt(probability * (1 - probability) / kDraws); }

const std::vector<float> kLogits{std::log(0.5f), std::log(0.1f), std::log(0.3f), std::log(0.1f)};

TEST(Sampler, IsGreedyByDefaultAndTakesTheLowestOfEqualIds) {
  Sampler sampler({});
  EXPECT_EQ(sampler.Draw(kLogits), 0);
  EXPECT_EQ(sampler.Draw(std::vector<float>{1, 3, 3}), 1);
}

TEST(Sampler, DrawsWithTheSoftmaxProbabilities) {
  const auto frequencies = Frequencies({.temperature = 1, .top_k = 0, .top_p = 1, .seed = 3}, kLogits);
  const std::vector<double> expected{0.5, 0.1, 0.3, 0.1};
  for (int32_t id = 0; id < 4; ++id) {
    const double p = expected[static_cast<size_t>(id)];
    EXPECT_NEAR(frequencies.at(id), p, Slack(p));
  }
}

TEST(Sampler, TemperatureSharpens) {
  const double p = 0.25 / (0.25 + 0.01 + 0.09 + 0.01);  // squares of the probabilities
  const auto frequencies = Frequencies({.temperature = 0.5, .top_k = 0, .top_p = 1, .seed = 4}, kLogits);
  EXPECT_NEAR(frequencies.at(0), p, Slack(p));
}

TEST(Sampler, TopKAndTopPKeepTheLikeliest) {
  const auto top_k = Frequencies({.temperature = 1, .top_k = 2, .top_p = 1, .seed = 5}, kLogits);
  EXPECT_EQ(top_k.size(), 2u);
  EXPECT_NEAR(top_k.at(2), 0.375, Slack(0.375));
  const auto top_p = Frequencies({.temperature = 1, .top_k = 0, .top_p = 0.75, .seed = 6}, kLogits);
  EXPECT_EQ(top_p.size(), 2u);
  const auto all_but_one = Frequencies({.temperature = 1, .top_k = 0, .top_p = 0.85, .seed = 7}, kLogits);
  EXPECT_EQ(all_but_one.count(1), 1u);  // the lower id of two equals stays
  EXPECT_EQ(all_but_one.count(3), 0u);
}

TEST(Sampler, MinPKeepsWhatIsNearlyAsLikelyAsTheLikeliest) {
  EXPECT_EQ(Frequencies({.temperature = 1, .seed = 5, .min_p = 0.55}, kLogits).size(), 2U);
  EXPECT_EQ(Frequencies({.temperature = 1, .seed = 5, .min_p = 0.65}, kLogits).size(), 1U);
  EXPECT_EQ(Frequencies({.temperature = 1, .seed = 5, .min_p = 0.19}, kLogits).size(), 4U);
  EXPECT_EQ(Frequencies({.temperature = 1, .seed = 5, .min_p = 1}, std::vector<float>{2, 1, 2}).size(), 2U);
  // Of the probabilities that the temperature makes: their squares are 25 to 9.
  EXPECT_EQ(Frequencies({.temperature = 0.5, .seed = 5, .min_p = 0.55}, kLogits).size(), 1U);
}

TEST(Sampler, RepetitionIsPenalizedOnceInPromptAndContinuation) {
  Sampler sampler({.repetition_penalty = 2});
  const std::vector<float> logits{4, 3, -1, -3};
  EXPECT_EQ(sampler.Draw(logits), 0);
  sampler.SeePrompt(std::vector<int32_t>{0, 0, 2});
  EXPECT_EQ(sampler.Draw(logits), 1) << "2, 3, -2, -3";
  sampler.SeeDrawn(1);
  sampler.SeeDrawn(1);
  EXPECT_EQ(sampler.Draw(logits), 0) << "2, 1.5, -2, -3";
  const std::vector<float> negative{-1.5, -4, -1, -1.6F};
  EXPECT_EQ(sampler.Draw(negative), 3) << "-3, -8, -2, -1.6";
}

TEST(Sampler, PresenceAndFrequencyAreOfTheContinuationAlone) {
  const std::vector<float> logits{2, 1.5, 0, 0};
  Sampler presence({.presence_penalty = 0.75});
  presence.SeePrompt(std::vector<int32_t>{0, 0, 0});
  EXPECT_EQ(presence.Draw(logits), 0);
  for (int i = 0; i < 3; ++i) presence.SeeDrawn(0);
  EXPECT_EQ(presence.Draw(logits), 1) << "1.25, 1.5";
  presence.SeeDrawn(1);
  EXPECT_EQ(presence.Draw(logits), 0) << "1.25, 0.75";

  Sampler frequency({.frequency_penalty = 0.2});
  for (int i = 0; i < 2; ++i) frequency.SeeDrawn(0);
  EXPECT_EQ(frequency.Draw(logits), 0) << "1.6, 1.5";
  frequency.SeeDrawn(0);
  EXPECT_EQ(frequency.Draw(logits), 1) << "1.4, 1.5";
  Sampler encouraged({.presence_penalty = -2});
  encouraged.SeeDrawn(3);
  EXPECT_EQ(encouraged.Draw(std::vector<float>{1, 0, 0, 0}), 3);
}

TEST(Sampler, TheSeedDecides) {
  const SamplingOptions options{.temperature = 1, .top_k = 0, .top_p = 1, .seed = 9};
  Sampler a(options);
  Sampler b(options);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a.Draw(kLogits), b.Draw(kLogits));
}

TEST(Sampler, RefusesOptionsOutOfRangeAndNaN) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(Sampler({.temperature = -1}), ConfigError);
  EXPECT_THROW(Sampler({.temperature = nan}), ConfigError);
  EXPECT_THROW(Sampler({.temperature = 1, .top_k = -1}), ConfigError);
  EXPECT_THROW(Sampler({.temperature = 1, .top_k = 0, .top_p = 0}), ConfigError);
  EXPECT_THROW(Sampler({.temperature = 1, .top_k = 0, .top_p = 1.5}), ConfigError);
  for (const double bad : {-0.1, 1.1, nan}) EXPECT_THROW(Sampler({.min_p = bad}), ConfigError);
  for (const double bad : {0.0, -1.0, nan, static_cast<double>(INFINITY)}) {
    EXPECT_THROW(Sampler({.repetition_penalty = bad}), ConfigError);
  }
  for (const double bad : {-2.1, 2.1, nan}) {
    EXPECT_THROW(Sampler({.presence_penalty = bad}), ConfigError);
    EXPECT_THROW(Sampler({.frequency_penalty = bad}), ConfigError);
  }
  EXPECT_THROW(Sampler({}).Draw(std::vector<float>{1, std::nanf("")}), DeviceError);
}

}  // namespace
}  // namespace runahead
