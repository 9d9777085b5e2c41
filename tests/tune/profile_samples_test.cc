// Costs fitted to samples of a machine that others use too, against the costs that the samples were made of.
#include "tune/profile_samples.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "plan/counters.h"

namespace runahead {
namespace {

constexpr int64_t kLongest = 4096;
constexpr int kRounds = 12;
constexpr double kFirstS = 600e-6;  // fixed time of a layer, s
constexpr double kRowS = 25e-6;     // time of each further row, s
constexpr double kPairS = 14e-9;
constexpr double kMaskedPair = 1.1;  // cost of a masked pair, in visible pairs
constexpr double kHeadS = 1e-3;      // time of the last row, attention aside, s

WorkShape Shape() {
  WorkShape shape;
  shape.layers = 8;
  return shape;
}

double LinearSeconds(int64_t rows) { return kFirstS + kRowS * static_cast<double>(rows); }
double LayerSeconds(int64_t begin, int64_t end) {
  return LinearSeconds(end - begin) + kPairS * static_cast<double>(CausalPairs(begin, end, 0));
}

using Noise = std::function<double()>;  // a factor for each run

double NoNoise() { return 1; }

/// What this project was developed on: a neighbour on the same core nearly always, rarely none, and now and then, or
/// for a while often, moments without the processor.
Noise Neighbours(uint32_t seed) {
  return [random = std::mt19937(seed)]() mutable {
    const double kind = std::uniform_real_distribution(0.0, 1.0)(random);
    if (kind < 0.05) return std::uniform_real_distribution(0.45, 0.7)(random);
    if (kind > 0.8) return std::uniform_real_distribution(1.2, 5.0)(random);
    return std::uniform_real_distribution(0.95, 1.05)(random);
  };
}

/// All sizes once.
DeviceSamples Round(const Noise& noise, double slowdown) {
  const auto seconds = [&](double of) { return Means{noise() * slowdown * of}; };
  DeviceSamples samples;
  for (const int64_t rows : {1, 16, 256, 1024, 2048, 4096}) {
    const int64_t far = kLongest - rows;
    if (rows <= kLongest / 2) samples.dense_size = samples.layers.size();
    samples.layers.push_back({rows, far, {seconds(kRowS), seconds(LayerSeconds(0, rows)), {}}, {}});
    if (far > 0) samples.layers.back().at_end.layer_s = seconds(LayerSeconds(far, kLongest));
  }
  const int64_t half = samples.layers[samples.dense_size].rows;
  const auto masked = static_cast<double>(half * kLongest - CausalPairs(0, half, 0));
  samples.dense.layer_s = seconds(LayerSeconds(0, half) + kMaskedPair * kPairS * masked);
  samples.first_row.finish_s = seconds(kHeadS + kPairS);
  samples.last_row.finish_s = seconds(kHeadS + kPairS * kLongest);
  return samples;
}

/// Ranks 0, 1, ... with these slowdowns, each by its own noise.
GroupSamples Sample(const std::vector<double>& slowdowns, const std::function<Noise(int rank)>& noise_of) {
  GroupSamples group;
  for (int rank = 0; rank < static_cast<int>(slowdowns.size()); ++rank) {
    const Noise noise = noise_of(rank);
    for (int round = 0; round < kRounds; ++round) {
      Append(Round(noise, slowdowns[static_cast<size_t>(rank)]), group.devices[rank]);
    }
  }
  return group;
}

/// The seconds of a layer of [begin, end) by the costs over those by which the samples were made.
double LayerRatio(const DeviceCost& cost, int64_t begin, int64_t end) {
  const RowCost row = cost.At(end - begin);
  const auto pairs = static_cast<double>(CausalPairs(begin, end, 0));
  return (row.layer_s + row.pair_s * pairs) / LayerSeconds(begin, end);
}

TEST(FitDevices, FindsTheCostsOfAQuietMachine) {
  const GroupSamples seen = Sample({1}, [](int) { return NoNoise; });
  const DeviceCost cost = FitDevices({"a"}, Shape(), seen, kLongest).front();
  for (const RowCost& knot : cost.knots) {
    EXPECT_NEAR(knot.before_s, kRowS, 1e-9);
    EXPECT_NEAR(knot.layer_s / LinearSeconds(knot.rows), 1, 1e-6) << knot.rows;
    EXPECT_NEAR(knot.pair_s / kPairS, 1, 1e-6) << knot.rows;
  }
  EXPECT_NEAR(cost.masked_pair, kMaskedPair, 1e-6);
  EXPECT_NEAR(cost.finish_s, kHeadS, 1e-9);
  EXPECT_NEAR(cost.finish_pair_s / kPairS, 1, 1e-6);
}

TEST(FitDevices, IsNotMovedByMomentsThatAreFasterOrSlowerThanMost) {
  for (uint32_t seed = 0; seed < 10; ++seed) {
    const GroupSamples seen = Sample({1, 1}, [&](int rank) { return Neighbours(2 * seed + rank); });
    const DeviceCost cost = FitDevices({"a", "a"}, Shape(), seen, kLongest).front();
    for (const int64_t rows : {1024, 1500, 2048, 3000}) {
      EXPECT_NEAR(LayerRatio(cost, 0, rows), 1, 0.06) << rows << ", seed " << seed;
      EXPECT_NEAR(LayerRatio(cost, kLongest - rows, kLongest), 1, 0.06) << rows << ", seed " << seed;
    }
    EXPECT_NEAR(cost.masked_pair, kMaskedPair, 0.2) << "seed " << seed;
  }
}

TEST(FitDevices, IsNotMovedByAPaceThatItsGaugeSees) {
  constexpr double kGaugeS = 2e-3;
  std::mt19937 random(7);
  GroupSamples seen;
  for (int round = 0; round < kRounds; ++round) {
    // Each run at a pace of its own, in units of what the gauge took then; the machine's usual pace is 1.
    DeviceSamples samples = Round([] { return 1 / kGaugeS; }, 1);
    for (int run = 0; run < 10; ++run) samples.gauge_s.push_back(kGaugeS * (random() % 5 == 0 ? 0.6 : 1));
    Append(samples, seen.devices[0]);
  }
  const DeviceCost cost = FitDevices({"a"}, Shape(), seen, kLongest).front();
  EXPECT_NEAR(LayerRatio(cost, 0, 1500), 1, 0.01);
  EXPECT_NEAR(LayerRatio(cost, kLongest - 1500, kLongest), 1, 0.01);
  EXPECT_NEAR(cost.masked_pair, kMaskedPair, 1e-6);
  EXPECT_NEAR(cost.finish_s, kHeadS, 1e-9);
}

TEST(FitDevices, GivesEqualRanksEqualCosts) {
  const GroupSamples seen = Sample({1, 3, 1}, [](int rank) { return Neighbours(100 + rank); });
  const std::vector<DeviceCost> costs = FitDevices({"a", "a, slowed", "a"}, Shape(), seen, kLongest);
  for (size_t i = 0; i < costs[0].knots.size(); ++i) {
    EXPECT_EQ(costs[0].knots[i].layer_s, costs[2].knots[i].layer_s);
    EXPECT_EQ(costs[0].knots[i].pair_s, costs[2].knots[i].pair_s);
  }
  EXPECT_EQ(costs[0].masked_pair, costs[2].masked_pair);
  EXPECT_NEAR(LayerRatio(costs[0], 0, 2048), 1, 0.08);
  EXPECT_NEAR(LayerRatio(costs[1], 0, 2048), 3, 0.24);
}

TEST(FitDevices, TakesANamesakesCostsForARankThatWasNotSeen) {
  const GroupSamples seen = Sample({1}, [](int) { return NoNoise; });
  const std::vector<DeviceCost> costs = FitDevices({"a", "a"}, Shape(), seen, kLongest);
  EXPECT_EQ(costs[1].At(2048).layer_s, costs[0].At(2048).layer_s);
}

TEST(FitHop, FindsTheRateAndTheLatencyOfALink) {
  constexpr double kRate = 125e6;
  constexpr double kOneRow = 0.003;  // latency of short messages, s
  constexpr double kLatency = 0.008;
  const auto round = [&](int64_t rows) { return kLatency + static_cast<double>(rows) * 1000 / kRate + kOneRow; };
  const HopSamples seen{500, 2000, 1000, {2 * kOneRow}, {round(500), round(500)}, {0, round(2000), 2}};
  const LinkCost link = FitHop(seen, Mover::kEngine);
  EXPECT_NEAR(link.bytes_per_s, kRate, 1);
  EXPECT_NEAR(link.latency_s, kLatency, 1e-9);
  EXPECT_EQ(link.setup_s, 0);
}

TEST(FitHop, GivesARateWhereMoreRowsTookNoLonger) {
  const LinkCost link = FitHop({1, 2, 1000, {0.1}, {0.05}, {0.05}}, Mover::kEngine);
  EXPECT_GT(link.bytes_per_s, 0);
  EXPECT_LT(link.bytes_per_s, 1e9);
}

}  // namespace
}  // namespace runahead
