// Every kernel of matrix products that this processor can run: right to a derived tolerance, and the same bits for a
// row whatever shares the product with it.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cstring>

#include "ops/cpu/matmul/linear.h"
#include "ops/cpu/matmul/multiplier.h"
#include "ops_testing.h"

namespace runahead::testing {
namespace {

using cpu::CpuLinear;
using cpu::Kernel;
using cpu::Multiplier;
using cpu::Team;

/// The kernels for `compute`, with f32's for each width of vectors.
std::vector<Kernel> AllKernels(DType compute) {
  std::vector<Kernel> kernels = cpu::KernelsFor(compute);
  const int64_t supported = hwy::SupportedTargets();
  for (int64_t left = supported; left != 0; left &= left - 1) {
    hwy::SetSupportedTargetsForTest(left & -left);
    const Kernel kernel = cpu::F32Kernel();
    if (std::string_view(kernel.name) != kernels.back().name) kernels.push_back(kernel);
  }
  hwy::SetSupportedTargetsForTest(0);
  return kernels;
}

constexpr size_t kAllInPlace = 0;
constexpr size_t kAllPacked = ~size_t{0};

/// One product's operands.
struct Operands {
  HostTensor x;
  HostTensor weights;
  HostTensor bias;

  Operands(std::mt19937& random, DType compute, int64_t rows, int64_t depth, int64_t features)
      : x(compute, {rows, depth}, 3), weights(compute, {features, depth}), bias(DType::kF32, {features}) {
    x.Randomise(random);
    weights.Randomise(random);
    bias.Randomise(random);
  }
  std::vector<LinearPart> Parts() { return {{{weights.view()}, {bias.view()}, true}}; }
};

class MatmulBitsTest : public ::testing::TestWithParam<DType> {
 protected:
  [[nodiscard]] CpuLinear Prepare(Operands& operands, const Kernel& kernel, size_t in_place_bytes) {
    return {*device_, operands.Parts(), GetParam(), kernel, in_place_bytes};
  }

  std::unique_ptr<Device> device_ = MakeCpuDevice();
  std::mt19937 random_{20261129};
};

HostTensor Product(int threads, const CpuLinear& linear, TensorView x, DType result) {
  HostTensor y(result, {x.rows(), linear.out_features(0, linear.parts())}, 5);
  const Team team(threads);
  Multiplier(team).Multiply(x, linear, 0, linear.parts(), y.view());
  EXPECT_TRUE(y.GapsUntouched());
  return y;
}

/// How many elements of rows [0, n) of `actual` are not those of `expected` from `row` on.
int64_t Differences(const HostTensor& actual, const HostTensor& expected, int64_t row) {
  int64_t differences = 0;
  for (int64_t i = 0; i < actual.rows(); ++i) {
    for (int64_t j = 0; j < actual.columns(); ++j) differences += actual.At(i, j) != expected.At(row + i, j) ? 1 : 0;
  }
  return differences;
}

TEST_P(MatmulBitsTest, SumsAreRight) {
  for (const Kernel& kernel : AllKernels(GetParam())) {
    for (const int64_t depth : {1, 2, 3, 31, 32, 33, 64, 95, 100, 515, 1100}) {
      for (const int64_t features : {1, 15, 16, 33, 70}) {
        SCOPED_TRACE(::testing::Message() << kernel.name << ", " << depth << " by " << features);
        Operands operands(random_, GetParam(), 19, depth, features);
        const HostTensor y = Product(1, Prepare(operands, kernel, kAllInPlace), operands.x.view(), DType::kF32);
        for (int64_t i = 0; i < y.rows(); ++i) {
          for (int64_t j = 0; j < features; ++j) {
            double sum = operands.bias.At(j, 0);
            double squares = sum * sum;
            for (int64_t k = 0; k < depth; ++k) {
              const double term = double{operands.x.At(i, k)} * double{operands.weights.At(j, k)};
              sum += term;
              squares += term * term;
            }
            const double norm = std::sqrt(squares * static_cast<double>(depth + 1));
            ASSERT_NEAR(y.At(i, j), sum, SumTolerance(DType::kF32, depth + 1, norm)) << i << ", " << j;
          }
        }
      }
    }
  }
}

TEST_P(MatmulBitsTest, ARowDoesNotDependOnItsCompany) {
  constexpr int64_t kRows = 70;
  for (const Kernel& kernel : AllKernels(GetParam())) {
    for (const auto& [depth, features] :
         {std::pair<int64_t, int64_t>{515, 70}, {96, 33}, {1088, 64}, {1024, 40}, {2560, 33}}) {
      Operands operands(random_, GetParam(), kRows, depth, features);
      const CpuLinear in_place = Prepare(operands, kernel, kAllInPlace);
      const CpuLinear packed = Prepare(operands, kernel, kAllPacked);
      ASSERT_FALSE(in_place.matrix(0).packed);
      ASSERT_TRUE(packed.matrix(0).packed);
      const HostTensor expected = Product(1, packed, operands.x.view(), DType::kF32);
      for (int64_t rows = 1; rows <= kRows; rows += rows < 20 ? 1 : 5) {
        const int64_t row = (rows * 29) % (kRows - rows + 1);
        const TensorView x = operands.x.view().Rows(row, row + rows);
        const int threads = static_cast<int>(1 + rows % 4);
        EXPECT_EQ(Differences(Product(threads, packed, x, DType::kF32), expected, row), 0)
            << kernel.name << " packed, " << rows << " rows from " << row << ", " << threads << " threads";
        EXPECT_EQ(Differences(Product(threads, in_place, x, DType::kF32), expected, row), 0)
            << kernel.name << " in place, " << rows << " rows from " << row << ", " << threads << " threads";
      }
    }
  }
}

TEST_P(MatmulBitsTest, LongPromptsHaveTheSameBits) {
  constexpr int64_t kRows = 1200;
  constexpr int64_t kDepth = 1056;
  for (const Kernel& kernel : AllKernels(GetParam())) {
    if (std::string_view(kernel.name) == "EMU128" || std::string_view(kernel.name).starts_with("SS")) continue;
    Operands operands(random_, GetParam(), kRows, kDepth, 300);
    const CpuLinear in_place = Prepare(operands, kernel, kAllInPlace);
    const HostTensor expected = Product(3, in_place, operands.x.view(), GetParam());
    EXPECT_EQ(
        Differences(Product(1, Prepare(operands, kernel, kAllPacked), operands.x.view(), GetParam()), expected, 0), 0)
        << kernel.name << ", packed";
    for (const int64_t row : {0, 1, 511, 512, 777, 1199}) {
      const HostTensor alone = Product(1, in_place, operands.x.view().Rows(row, row + 1), GetParam());
      EXPECT_EQ(Differences(alone, expected, row), 0) << kernel.name << ", row " << row << " decoded";
    }
    for (const int64_t end : {600, 1001}) {
      const HostTensor split = Product(2, in_place, operands.x.view().Rows(100, end), GetParam());
      EXPECT_EQ(Differences(split, expected, 100), 0) << kernel.name << ", rows 100 to " << end;
    }
  }
}

// What a product does on the way to memory rounds as separate steps do.
TEST_P(MatmulBitsTest, FusedStepsAreThoseOneByOne) {
  for (const Kernel& kernel : AllKernels(GetParam())) {
    for (const int64_t rows : {1, 5, 40, 601}) {
      constexpr int64_t kDepth = 96;
      constexpr int64_t kFeatures = 70;
      Operands gate(random_, GetParam(), rows, kDepth, kFeatures);
      Operands up(random_, GetParam(), 1, kDepth, kFeatures);
      const std::vector<LinearPart> both = {
          {{gate.weights.view(), up.weights.view()}, {gate.bias.view(), up.bias.view()}, true}};
      const CpuLinear gate_up(*device_, both, GetParam(), kernel, rows % 2 == 0 ? kAllInPlace : kAllPacked);
      const auto ops = MakeCpuOps(*device_, 1);
      const auto stream = device_->NewStream();
      const HostTensor product = Product(1, gate_up, gate.x.view(), GetParam());
      HostTensor copy = product;
      HostTensor expected(GetParam(), {rows, kFeatures});
      ops->GatedActivation(Activation::kSilu, copy.view(), expected.view(), *stream);
      HostTensor scratch(GetParam(), {rows, 2 * kFeatures});
      HostTensor actual(GetParam(), {rows, kFeatures}, 3);
      const Team team(2);
      Multiplier(team).MultiplyActivate(gate.x.view(), gate_up, Activation::kSilu, scratch.view(), actual.view());
      EXPECT_EQ(Differences(actual, expected, 0), 0) << kernel.name << ", gated, " << rows << " rows";
      EXPECT_TRUE(actual.GapsUntouched());

      const CpuLinear alone = Prepare(gate, kernel, kAllInPlace);
      HostTensor delta = Product(1, alone, gate.x.view(), GetParam());
      ops->Activate(Activation::kGelu, delta.view(), expected.view(), *stream);
      HostTensor narrow(GetParam(), {rows, kFeatures});
      Multiplier(team).MultiplyActivate(gate.x.view(), alone, Activation::kGelu, narrow.view(), actual.view());
      EXPECT_EQ(Differences(actual, expected, 0), 0) << kernel.name << ", plain, " << rows << " rows";

      HostTensor residual(GetParam(), {rows, kFeatures}, 3);
      residual.Randomise(random_);
      HostTensor sum = residual;
      ops->Add(residual.view(), delta.view(), *stream);
      Multiplier(team).MultiplyAdd(gate.x.view(), alone, sum.view());
      EXPECT_EQ(Differences(sum, residual, 0), 0) << kernel.name << ", residual, " << rows << " rows";
    }
  }
}

// Padding is multiplied by nothing that a neighbour holds: NaN and infinity beside a matrix stay there.
TEST_P(MatmulBitsTest, ReadsNoNeighbours) {
  constexpr int64_t kDepth = 37;
  for (const Kernel& kernel : AllKernels(GetParam())) {
    Operands operands(random_, GetParam(), 3, kDepth, 20);
    HostTensor wide(GetParam(), {22, kDepth});  // its first and last row stay NaN
    for (int64_t i = 0; i < 20; ++i) {
      for (int64_t j = 0; j < kDepth; ++j) wide.Set(i + 1, j, operands.weights.At(i, j));
    }
    const std::vector<LinearPart> parts = {{{wide.view().Rows(1, 21)}, {operands.bias.view()}, true}};
    const CpuLinear linear(*device_, parts, GetParam(), kernel, kAllInPlace);
    const HostTensor expected = Product(1, Prepare(operands, kernel, kAllPacked), operands.x.view(), DType::kF32);
    EXPECT_EQ(Differences(Product(1, linear, operands.x.view(), DType::kF32), expected, 0), 0) << kernel.name;
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, MatmulBitsTest, ::testing::Values(DType::kF32, DType::kBF16, DType::kF16),
                         [](const auto& dtype) { return std::string(Name(dtype.param)); });

}  // namespace
}  // namespace runahead::testing
