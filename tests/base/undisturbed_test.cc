#include "base/undisturbed.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <thread>
#include <vector>

namespace runahead {
namespace {

constexpr double kSampleS = 0.5;

/// A machine on which each sample takes half a second, during which `stolen_s` are stolen, sample after sample.
class FakeMachine {
 public:
  explicit FakeMachine(std::vector<double> stolen_s) : each_(std::move(stolen_s)) {}

  /// The number of the sample that counts.
  Sample<size_t> Measure(double patience_s) {
    const SampleClocks clocks{[this] { return now_s_; }, [this] { return stolen_s_; }};
    const auto take = [this] {
      now_s_ += kSampleS;
      stolen_s_ += each_.at(taken_);
      return taken_++;
    };
    return LeastDisturbed(take, patience_s, clocks);
  }
  [[nodiscard]] size_t taken() const { return taken_; }

 private:
  std::vector<double> each_;
  size_t taken_ = 0;
  double now_s_ = 100;
  double stolen_s_ = 7;
};

TEST(LeastDisturbed, TakesOneSampleWhereNothingIsStolen) {
  FakeMachine machine({0, 0, 0});
  const Sample<size_t> sample = machine.Measure(60);
  EXPECT_EQ(machine.taken(), 1U);
  EXPECT_EQ(sample.value, 0U);
  EXPECT_TRUE(sample.undisturbed());
  EXPECT_DOUBLE_EQ(sample.seconds, kSampleS);
}

TEST(LeastDisturbed, GoesOnUntilASampleIsUndisturbed) {
  FakeMachine machine({0.25, 0.125, 0, 0.25, 0});
  const Sample<size_t> sample = machine.Measure(60);
  EXPECT_EQ(machine.taken(), 3U);
  EXPECT_EQ(sample.value, 2U);
  EXPECT_TRUE(sample.undisturbed());
  EXPECT_DOUBLE_EQ(sample.seconds, kSampleS);  // its own only
}

TEST(LeastDisturbed, TakesTheLeastDisturbedOneWhenPatienceEnds) {
  FakeMachine machine({0.25, 0.125, 0.375, 0.125, 0, 0});
  const Sample<size_t> sample = machine.Measure(4 * kSampleS);
  EXPECT_EQ(machine.taken(), 4U);
  EXPECT_EQ(sample.value, 1U);
  EXPECT_FALSE(sample.undisturbed());
  EXPECT_DOUBLE_EQ(sample.stolen_s, 0.125);
}

TEST(LeastDisturbed, TakesOneSampleWithoutPatience) {
  FakeMachine machine({0.25, 0});
  EXPECT_EQ(machine.Measure(0).value, 0U);
  EXPECT_EQ(machine.taken(), 1U);
}

std::vector<int> CountedOf(const std::vector<double>& stolen_s, size_t least) {
  std::vector<Sample<int>> samples;
  for (const double stolen : stolen_s) samples.push_back({static_cast<int>(samples.size()), kSampleS, stolen});
  std::vector<int> values;
  for (const Sample<int>& sample : Counted(samples, least)) values.push_back(sample.value);
  return values;
}

TEST(Counted, TakesEveryUndisturbedSample) {
  EXPECT_EQ(CountedOf({0, 0.25, 0, 0.125, 0}, 2), (std::vector<int>{0, 2, 4}));
  EXPECT_EQ(CountedOf({0, 0}, 1), (std::vector<int>{0, 1}));
}

TEST(Counted, TakesTheLeastDisturbedWhereTooFewAreUndisturbed) {
  EXPECT_EQ(CountedOf({0.5, 0.25, 0, 0.125, 0.375}, 3), (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(CountedOf({0.5, 0.25}, 5), (std::vector<int>{0, 1}));
  EXPECT_TRUE(CountedOf({}, 1).empty());
}

TEST(ThreadSeconds, DoesNotCountSleep) {
  const double before = ThreadSeconds();
  const double begin = SecondsNow();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_LT(ThreadSeconds() - before, SecondsNow() - begin);
}

TEST(StolenSeconds, NeverGoesBack) {
  const double before = StolenSeconds();
  EXPECT_GE(before, 0);
  EXPECT_GE(StolenSeconds(), before);
}

}  // namespace
}  // namespace runahead
