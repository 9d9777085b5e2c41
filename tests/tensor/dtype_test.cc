#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace runahead {
namespace {

TEST(Float16, EveryBitPatternSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    Float16 half;
    half.bits = static_cast<uint16_t>(bits);
    const auto value = static_cast<float>(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(Float16(value)))) << bits;
    } else {
      EXPECT_EQ(Float16(value).bits, half.bits) << bits;
    }
  }
}

TEST(BFloat16, EveryBitPatternSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    BFloat16 brain;
    brain.bits = static_cast<uint16_t>(bits);
    const auto value = static_cast<float>(brain);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(value)))) << bits;
    } else {
      EXPECT_EQ(BFloat16(value).bits, brain.bits) << bits;
    }
  }
}

/// |rounded - x| is at most half the distance between the neighbours of x, and ties go to the even one.
template <typename T>
void ExpectNearest(float x) {
  T rounded(x);
  T below = rounded;
  T above = rounded;
  below.bits = static_cast<uint16_t>(rounded.bits - 1);
  above.bits = static_cast<uint16_t>(rounded.bits + 1);
  const double error = std::abs(static_cast<double>(static_cast<float>(rounded)) - x);
  for (const T neighbour : {below, above}) {
    const double other = std::abs(static_cast<double>(static_cast<float>(neighbour)) - x);
    EXPECT_TRUE(error < other || (error == other && rounded.bits % 2 == 0)) << x;
  }
}

TEST(SixteenBitFloats, RoundToTheNearestAndTiesToEven) {
  std::mt19937 random(11);
  std::uniform_real_distribution<float> exponent(-20, 14);
  std::uniform_real_distribution<float> mantissa(1, 2);
  for (int i = 0; i < 20000; ++i) {
    const float x = std::ldexp(mantissa(random), static_cast<int>(exponent(random)));
    ExpectNearest<Float16>(x);
    ExpectNearest<BFloat16>(x);
  }
  for (const float tie : {1.0f + 0x1p-11f, 1.0f + 3 * 0x1p-11f, 0x1p-24f * 2.5f, 0x1p-14f * (1 + 0x1p-11f)}) {
    ExpectNearest<Float16>(tie);
  }
  for (const float tie : {1.0f + 0x1p-8f, 1.0f + 3 * 0x1p-8f}) ExpectNearest<BFloat16>(tie);
}

TEST(SixteenBitFloats, OverflowBecomesInfinite) {
  EXPECT_EQ(static_cast<float>(Float16(65504.0f)), 65504.0f);
  EXPECT_EQ(static_cast<float>(Float16(65519.9f)), 65504.0f);
  EXPECT_TRUE(std::isinf(static_cast<float>(Float16(65520.0f))));
  EXPECT_TRUE(std::isinf(static_cast<float>(BFloat16(std::numeric_limits<float>::max()))));
  EXPECT_LT(static_cast<float>(Float16(-1e9f)), 0);
}

TEST(DTypeNames, ParseTheirOwnNames) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) EXPECT_EQ(ParseDType(Name(dtype)), dtype);
  EXPECT_FALSE(ParseDType("fp16").has_value());
}

}  // namespace
}  // namespace runahead
