// Matrix products against the oracle.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <thread>

#include "ops_testing.h"

namespace runahead::testing {
namespace {

/// Matrices and biases of a Linear that stay alive, and what the tolerance needs of them.
struct Weights {
  std::vector<std::vector<HostTensor>> matrices;  // [part][matrix]
  std::vector<std::vector<HostTensor>> biases;

  Weights(std::mt19937& random, DType dtype, int64_t in_features, const std::vector<std::vector<int64_t>>& rows,
          bool biased, int64_t gap = 0) {
    for (const std::vector<int64_t>& part : rows) {
      matrices.emplace_back();
      biases.emplace_back();
      for (const int64_t n : part) {
        matrices.back().emplace_back(dtype, Shape{n, in_features}, gap);
        matrices.back().back().Randomise(random);
        if (!biased) continue;
        biases.back().emplace_back(dtype, Shape{n});
        biases.back().back().Randomise(random);
      }
    }
  }

  std::vector<LinearPart> Parts(bool lasting = false) {
    std::vector<LinearPart> parts;
    for (size_t i = 0; i < matrices.size(); ++i) {
      parts.emplace_back().lasting = lasting;
      for (HostTensor& matrix : matrices[i]) parts.back().weights.push_back(matrix.view());
      for (HostTensor& bias : biases[i]) parts.back().biases.push_back(bias.view());
    }
    return parts;
  }
};

/// Unit normal operands: a product's norm is sqrt(terms).
double Tolerance(DType compute, DType result, int64_t in_features, double expected) {
  const double norm = std::sqrt(static_cast<double>(in_features) + 1);
  return SumTolerance(DType::kF32, in_features, norm) + 2 * UnitRoundoff(result) * std::abs(expected) +
         (compute == DType::kF16 ? 0x1p-24 : 0.0);
}

class MatmulTest : public OpsTest {
 protected:
  void Compare(Ops& ops, DType compute, DType stored, DType result, int64_t rows, int64_t in_features,
               const std::vector<std::vector<int64_t>>& parts, bool biased, int64_t gap, bool lasting = false) {
    Weights weights(random, stored, in_features, parts, biased);
    const auto fast = ops.Prepare(weights.Parts(lasting), compute);
    const auto slow = oracle->Prepare(weights.Parts(), compute);
    HostTensor x(compute, {rows, in_features}, gap);
    x.Randomise(random);
    for (int first = 0; first < fast->parts(); ++first) {
      for (int count = 1; first + count <= fast->parts(); ++count) {
        const int64_t out_features = fast->out_features(first, count);
        HostTensor expected(result, {rows, out_features});
        HostTensor actual(result, {rows, out_features}, gap);
        oracle->Matmul(x.view(), *slow, first, count, expected.view(), *stream);
        ops.Matmul(x.view(), *fast, first, count, actual.view(), *stream);
        ExpectNear(
            actual, expected,
            [&](int64_t i, int64_t j) { return Tolerance(compute, result, in_features, expected.At(i, j)); },
            fmt::format("matmul {} weights {} result {}, {}x{}x{}, parts {}+{}", Name(compute), Name(stored),
                        Name(result), rows, in_features, out_features, first, count));
      }
    }
  }
};

TEST_F(MatmulTest, AllDTypesAndShapes) {
  for (const DType compute : kAllDTypes) {
    for (const DType stored : kAllDTypes) {
      for (const int64_t rows : {1, 2, 3, 4, 5, 17, 300}) {
        Compare(*one, compute, stored, compute, rows, 96, {{128}}, false, 0);
        Compare(*two, compute, stored, DType::kF32, rows, 67, {{50}}, true, 0);
      }
    }
  }
}

TEST_F(MatmulTest, PartsTogetherAndAlone) {
  for (const DType compute : kAllDTypes) {
    for (const int64_t rows : {1, 19, 260}) {
      Compare(*two, compute, DType::kBF16, compute, rows, 80, {{64}, {32, 32}}, true, 0);
      Compare(*two, compute, DType::kF32, compute, rows, 80, {{40}, {24, 8}, {7}}, true, 3);
      Compare(*one, compute, DType::kF16, DType::kF32, rows, 33, {{128}, {64}}, false, 5);
    }
  }
}

// Large enough to stay where they are: 8 MB each.
TEST_F(MatmulTest, LastingWeightsStayInPlace) {
  constexpr int64_t kIn = 2000;
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    const int64_t n = dtype == DType::kF32 ? 1070 : 2110;
    EXPECT_TRUE(one->LeavesInPlace({n, kIn}, dtype, dtype));
    EXPECT_FALSE(one->LeavesInPlace({n, kIn}, DType::kF16, dtype));
    for (const int64_t rows : {1, 2, 3, 4}) Compare(*two, dtype, dtype, dtype, rows, kIn, {{n}}, true, 5, true);
    Compare(*two, dtype, dtype, dtype, 18, kIn, {{n}}, false, 0, true);
    Compare(*one, dtype, dtype, DType::kF32, 7, kIn, {{n, n + 3}}, true, 5, true);
    Compare(*two, dtype, dtype, dtype, 5, kIn, {{n}, {40, 24}, {n}}, true, 3, true);
    Compare(*two, dtype, dtype, dtype, 2, kIn, {{64}, {n}, {64}}, false, 0, true);
  }
  Compare(*two, DType::kBF16, DType::kF32, DType::kBF16, 2, kIn, {{1100}}, false, 0, true);
}

// A part stays or is packed as a whole, and so is one of another dtype.
TEST_F(MatmulTest, SomeLastingPartsArePacked) {
  constexpr int64_t kIn = 2000;
  for (const DType compute : {DType::kBF16, DType::kF32}) {
    const int64_t n = compute == DType::kF32 ? 1070 : 2110;
    for (const int64_t rows : {2, 6})
      Compare(*two, compute, compute, compute, rows, kIn, {{n}, {24, n}}, true, 3, true);
    Compare(*two, compute, DType::kF16, compute, 6, kIn, {{n}}, true, 0, true);
  }
}

// Whether something was copied shows when the original changes.
TEST_F(MatmulTest, InPlaceMeansInPlace) {
  constexpr int64_t kIn = 2000;
  constexpr int64_t kOut = 1070;
  const auto product_of_zeroed = [&](int64_t gap, const std::vector<int64_t>& rows, bool lasting) {
    Weights weights(random, DType::kF32, kIn, {rows}, false, gap);
    const auto linear = two->Prepare(weights.Parts(lasting), DType::kF32);
    for (HostTensor& matrix : weights.matrices.front()) {
      std::fill(matrix.memory().begin(), matrix.memory().end(), std::byte{0});
    }
    HostTensor x(DType::kF32, {2, kIn});
    x.Randomise(random);
    HostTensor y(DType::kF32, {2, linear->out_features(0, 1)});
    two->Matmul(x.view(), *linear, y.view(), *stream);
    return y.Largest();
  };
  ASSERT_TRUE(two->LeavesInPlace({kOut, kIn}, DType::kF32, DType::kF32));
  EXPECT_EQ(product_of_zeroed(0, {kOut}, true), 0);
  EXPECT_EQ(product_of_zeroed(0, {kOut, kOut + 1}, true), 0);
  EXPECT_GT(product_of_zeroed(0, {kOut}, false), 1) << "what does not last";
  EXPECT_GT(product_of_zeroed(5, {kOut}, true), 1) << "rows that lie apart";
  if (!two->LeavesInPlace({24, kIn}, DType::kF32, DType::kF32)) {
    EXPECT_GT(product_of_zeroed(0, {kOut, 24}, true), 1) << "a part with a small matrix";
  }
}

TEST_F(MatmulTest, WeightsAreKeptInWhatTheyAreMultipliedIn) {
  EXPECT_EQ(one->WeightDType(DType::kF32), DType::kF32);
  EXPECT_EQ(one->WeightDType(DType::kF16), DType::kF32);
  EXPECT_EQ(one->WeightDType(DType::kBF16), CpuHasNativeBf16() ? DType::kBF16 : DType::kF32);
}

// Rows of an odd length begin anywhere.
TEST_F(MatmulTest, OddRowsInPlace) {
  constexpr int64_t kIn = 2003;
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    const int64_t n = dtype == DType::kF32 ? 1049 : 2095;
    for (const int64_t rows : {1, 3, 17}) Compare(*two, dtype, dtype, dtype, rows, kIn, {{n}}, true, 3, true);
    Compare(*two, dtype, dtype, DType::kF32, 130, kIn, {{n}}, false, 0, true);
  }
}

TEST_F(MatmulTest, BlocksOfRowsInPlace) {
  constexpr int64_t kIn = 2000;
  constexpr int64_t kRows = 300;
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    const int64_t n = dtype == DType::kF32 ? 1070 : 2110;
    Weights weights(random, dtype, kIn, {{n}}, true);
    const auto in_place = two->Prepare(weights.Parts(true), dtype);
    const auto packed = two->Prepare(weights.Parts(false), dtype);
    HostTensor x(dtype, {kRows, kIn});
    x.Randomise(random);
    HostTensor expected(dtype, {kRows, n});
    HostTensor actual(dtype, {kRows, n}, 3);
    two->Matmul(x.view(), *packed, expected.view(), *stream);
    two->Matmul(x.view(), *in_place, actual.view(), *stream);
    ExpectNear(
        actual, expected, [&](int64_t i, int64_t j) { return 2 * Tolerance(dtype, dtype, kIn, expected.At(i, j)); },
        "in place against packed");
  }
}

TEST_F(MatmulTest, LongSums) { Compare(*two, DType::kBF16, DType::kBF16, DType::kF32, 6, 4099, {{70}}, false, 0); }

TEST_F(MatmulTest, RanksShareWeights) {
  Weights weights(random, DType::kBF16, 128, {{192}}, true);
  const auto linear = one->Prepare(weights.Parts(), DType::kBF16);
  HostTensor x(DType::kBF16, {48, 128});
  x.Randomise(random);
  HostTensor expected(DType::kF32, {48, 192});
  one->Matmul(x.view(), *linear, expected.view(), *stream);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 4; ++rank) {
    ranks.emplace_back([&, rank] {
      const auto ops = MakeCpuOps(*device, 1 + rank % 2);
      for (int repeat = 0; repeat < 20; ++repeat) {
        HostTensor actual(DType::kF32, {48, 192});
        ops->Matmul(x.view(), *linear, actual.view(), *stream);
        ExpectNear(
            actual, expected, [](int64_t, int64_t) { return 0.0; }, "shared weights");
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

}  // namespace
}  // namespace runahead::testing
