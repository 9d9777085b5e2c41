// Products by int8 and int4 weights: every kernel that this processor can run has the oracle's bits, whatever shares
// the product with a row, and the formats hold weights as well as they promise.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "ops/cpu/matmul/linear.h"
#include "ops/cpu/matmul/multiplier.h"
#include "ops/cpu/quantise.h"
#include "ops_testing.h"
#include "runahead/error.h"

namespace runahead::testing {
namespace {

using cpu::CpuLinear;
using cpu::Kernel;
using cpu::Multiplier;
using cpu::QuantisedRow;
using cpu::Team;

constexpr WeightFormat kFormats[] = {WeightFormat::kInt8, WeightFormat::kInt4};

class IntegerMatmulTest : public OpsTest {
 protected:
  /// Products of `x` and one matrix with a bias by every kernel are those of the oracle, in every bit.
  void ExpectOracles(HostTensor& x, HostTensor& weights, HostTensor& bias, WeightFormat format, DType result) {
    const std::vector<LinearPart> parts = {{{weights.view()}, {bias.view()}, true}};
    const auto slow = oracle->Prepare(parts, x.dtype(), format);
    HostTensor expected(result, {x.rows(), weights.rows()});
    oracle->Matmul(x.view(), *slow, expected.view(), *stream);
    for (const Kernel& kernel : cpu::IntegerKernelsFor(format)) {
      const CpuLinear linear(*device, parts, x.dtype(), kernel);
      for (const int threads : {1, 3}) {
        const Team team(threads);
        HostTensor actual(result, {x.rows(), weights.rows()}, 5);
        Multiplier(team).Multiply(x.view(), linear, 0, 1, actual.view());
        EXPECT_TRUE(actual.GapsUntouched());
        int64_t differences = 0;
        for (int64_t i = 0; i < x.rows(); ++i) {
          for (int64_t j = 0; j < weights.rows(); ++j) {
            const bool both_nan = std::isnan(actual.At(i, j)) && std::isnan(expected.At(i, j));
            differences += both_nan || actual.At(i, j) == expected.At(i, j) ? 0 : 1;
          }
        }
        EXPECT_EQ(differences, 0) << fmt::format("{} {}: x {} {}x{} by {} in {}, {} threads", kernel.name,
                                                 Name(format), Name(x.dtype()), x.rows(), x.columns(), weights.rows(),
                                                 Name(result), threads);
      }
    }
  }

  void ExpectOracles(WeightFormat format, DType compute, DType result, int64_t rows, int64_t depth,
                     int64_t features) {
    HostTensor x(compute, {rows, depth}, 3);
    HostTensor weights(DType::kBF16, {features, depth});
    HostTensor bias(DType::kF32, {features});
    x.Randomise(random);
    weights.Randomise(random, 0.02f);
    bias.Randomise(random);
    ExpectOracles(x, weights, bias, format, result);
  }
};

TEST_F(IntegerMatmulTest, AllRowsAndOddSizes) {
  for (const WeightFormat format : kFormats) {
    for (int64_t rows = 1; rows <= 35; ++rows) ExpectOracles(format, DType::kBF16, DType::kBF16, rows, 320, 50);
    for (const int64_t depth : {1, 31, 32, 33, 64, 65, 255, 256, 257, 700, 2048}) {
      for (const int64_t rows : {1, 5, 65}) ExpectOracles(format, DType::kBF16, DType::kF32, rows, depth, 33);
    }
    for (const int64_t features : {1, 15, 16, 17, 31, 32, 64, 1000}) {
      for (const int64_t rows : {1, 3}) ExpectOracles(format, DType::kF32, DType::kF32, rows, 96, features);
    }
  }
}

TEST_F(IntegerMatmulTest, AllDTypesAndManyRows) {
  for (const WeightFormat format : kFormats) {
    for (const DType compute : kAllDTypes) {
      for (const int64_t rows : {1, 2, 17, 300}) ExpectOracles(format, compute, compute, rows, 600, 100);
    }
  }
}

TEST_F(IntegerMatmulTest, HostileNumbers) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kMost = std::numeric_limits<float>::max();
  for (const WeightFormat format : kFormats) {
    HostTensor x(DType::kF32, {6, 300});
    HostTensor weights(DType::kF32, {40, 300});
    HostTensor bias(DType::kF32, {40});
    x.Randomise(random);
    weights.Randomise(random);
    bias.Randomise(random);
    for (int64_t k = 0; k < 300; ++k) {
      x.Set(0, k, 0);                            // nothing
      x.Set(1, k, k % 2 == 0 ? kMost : -kMost);  // the largest, everywhere
      weights.Set(0, k, 0);
      weights.Set(1, k, k % 2 == 0 ? kMost : -kMost);
      weights.Set(2, k, 1e-40f);                  // denormal
      weights.Set(3, k, 5);                       // all alike
      weights.Set(4, k, k % 3 == 0 ? -1.0f : 0);  // on one side
    }
    x.Set(2, 7, 1e30f);  // one out of all proportion
    x.Set(3, 299, kNan);
    x.Set(4, 0, kInfinity);
    x.Set(5, 5, -kInfinity);
    ExpectOracles(x, weights, bias, format, DType::kF32);
    HostTensor y(DType::kF32, {6, 40});
    const auto linear = one->Prepare({{{weights.view()}, {}}}, DType::kF32, format);
    one->Matmul(x.view(), *linear, y.view(), *stream);
    for (int64_t j = 0; j < 40; ++j) {
      EXPECT_EQ(y.At(0, j), 0);
      for (const int64_t row : {3, 4, 5}) EXPECT_TRUE(std::isnan(y.At(row, j)));
    }
  }
}

TEST_F(IntegerMatmulTest, RefusesWeightsThatAreNotFinite) {
  for (const WeightFormat format : kFormats) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      HostTensor weights(DType::kBF16, {70, 300});
      weights.Randomise(random).Set(65, 299, bad);
      LinearPart part{{weights.view()}, {}, false, {"layers.7.down.weight"}};
      try {
        (void)two->Prepare({part}, DType::kBF16, format);
        ADD_FAILURE() << "prepared";
      } catch (const ConfigError& error) {
        EXPECT_EQ(std::string(error.what()),
                  fmt::format("tensor 'layers.7.down.weight': [65, 299] is {}, which {} cannot hold; expected finite "
                              "weights",
                              static_cast<double>(bad), Name(format)));
      }
    }
  }
}

TEST_F(IntegerMatmulTest, StepsTogetherAreStepsAlone) {
  for (const WeightFormat format : kFormats) {
    for (const int64_t rows : {1, 9, 70}) {
      HostTensor x(DType::kBF16, {rows, 192});
      HostTensor gate(DType::kBF16, {96, 192});
      HostTensor up(DType::kBF16, {96, 192});
      x.Randomise(random);
      gate.Randomise(random);
      up.Randomise(random);
      const auto linear = two->Prepare({{{gate.view(), up.view()}, {}}}, DType::kBF16, format);
      HostTensor product(DType::kBF16, {rows, 192});
      HostTensor expected(DType::kBF16, {rows, 96});
      HostTensor actual(DType::kBF16, {rows, 96});
      two->Matmul(x.view(), *linear, product.view(), *stream);
      two->GatedActivation(Activation::kSilu, product.view(), expected.view(), *stream);
      two->MatmulActivate(x.view(), *linear, Activation::kSilu, product.view(), actual.view(), *stream);
      ExpectNear(
          actual, expected, [](int64_t, int64_t) { return 0.0; }, "activated");
    }
  }
}

// ---- What the formats lose ------------------------------------------------------------------------------------

/// Root of the mean of squared errors over that of the weights.
double RelativeError(const std::vector<float>& weights, const QuantisedRow& row) {
  double error = 0;
  double norm = 0;
  for (size_t k = 0; k < weights.size(); ++k) {
    const double held = double{row.scales[k / kBlockDepth]} * row.codes[k];
    error += (held - weights[k]) * (held - weights[k]);
    norm += double{weights[k]} * weights[k];
  }
  return std::sqrt(error / norm);
}

TEST(QuantiseTest, ErrorsOfNormalWeights) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> weights(8192);
  for (float& weight : weights) weight = normal(random);
  QuantisedRow row;
  ASSERT_EQ(cpu::QuantiseWeights(WeightFormat::kInt8, weights.data(), std::ssize(weights), row), -1);
  // 256 normal numbers reach 2.8 of their deviations: rounding to 1/127 of it errs by 2.8 / 127 / sqrt(12).
  EXPECT_NEAR(RelativeError(weights, row), 0.0064, 0.0005);
  ASSERT_EQ(cpu::QuantiseWeights(WeightFormat::kInt4, weights.data(), std::ssize(weights), row), -1);
  // 32 of them span 4.1: 15 steps err by 4.1 / 15 / sqrt(12) at most, and the search finds better.
  EXPECT_LT(RelativeError(weights, row), 4.1 / 15 / std::sqrt(12.0));
}

TEST(QuantiseTest, Int4sCodesAreWhatStepsAndZerosSay) {
  std::mt19937 random(6);
  std::normal_distribution<float> normal(0.5f, 1);
  std::vector<float> weights(333);
  for (float& weight : weights) weight = normal(random);
  QuantisedRow row;
  ASSERT_EQ(cpu::QuantiseWeights(WeightFormat::kInt4, weights.data(), std::ssize(weights), row), -1);
  EXPECT_EQ(row.codes.size(), 384U);
  for (size_t k = 0; k < row.codes.size(); ++k) {
    const size_t group = k / kGroupDepth;
    EXPECT_LE(row.nibbles[k], 15);
    EXPECT_EQ(row.codes[k], row.steps[group] * row.nibbles[k] + row.zeros[group]);
    EXPECT_LE(row.zeros[group] + 15 * row.steps[group], 127);
  }
}

TEST(QuantiseTest, ExactWhereItCanBe) {
  std::vector<float> weights(256);
  for (size_t k = 0; k < weights.size(); ++k) weights[k] = static_cast<float>(k % 255) - 127;
  QuantisedRow row;
  ASSERT_EQ(cpu::QuantiseWeights(WeightFormat::kInt8, weights.data(), std::ssize(weights), row), -1);
  EXPECT_EQ(RelativeError(weights, row), 0);
}

TEST(QuantiseTest, FormatsHaveNames) {
  for (const WeightFormat format :
       {WeightFormat::kStored, WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kFp8}) {
    EXPECT_EQ(ParseWeightFormat(Name(format)), format);
  }
  EXPECT_EQ(ParseWeightFormat("int5"), std::nullopt);
  EXPECT_EQ(QuantisedRowBytes(WeightFormat::kInt8, 2048), 2048U + 32);
  EXPECT_EQ(QuantisedRowBytes(WeightFormat::kInt4, 2048), 1024U + 128 + 32);
  EXPECT_EQ(QuantisedRowBytes(WeightFormat::kFp8, 2048), 2048U + 4);
  EXPECT_EQ(FormatFor(WeightFormat::kFp8, 2048), WeightFormat::kFp8);
  EXPECT_EQ(FormatFor(WeightFormat::kFp8, 2056), WeightFormat::kStored);
  EXPECT_EQ(HeadFormat(WeightFormat::kFp8), WeightFormat::kStored);
}

}  // namespace
}  // namespace runahead::testing
