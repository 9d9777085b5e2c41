// Random tensors, guarded outputs and derived tolerances for the tests of operations.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "ops/ops.h"
#include "tensor/cpu_device.h"

namespace runahead::testing {

inline constexpr DType kAllDTypes[] = {DType::kF32, DType::kBF16, DType::kF16};

/// A norm that borrows its weights and its biases, which may be empty.
inline Norm MakeNorm(NormKind kind, TensorView weight, TensorView bias) {
  Norm norm;
  norm.kind = kind;
  norm.epsilon = 1e-5f;
  norm.weight.view = weight;
  norm.bias.view = bias;
  return norm;
}

/// A host tensor whose rows lie `gap` elements apart. Starts as NaN everywhere, gaps included.
class HostTensor {
 public:
  HostTensor(DType dtype, Shape shape, int64_t gap = 0)
      : dtype_(dtype), shape_(shape), stride_(shape.row_elements() + gap) {
    const auto elements = static_cast<size_t>(std::max<int64_t>(1, shape[0] * stride_));
    memory_.resize(elements * SizeOf(dtype));
    for (size_t i = 0; i < elements; ++i) SetFlat(i, std::numeric_limits<float>::quiet_NaN());
  }

  [[nodiscard]] DType dtype() const { return dtype_; }
  [[nodiscard]] TensorView view() { return {memory_.data(), dtype_, shape_, stride_}; }
  /// Everything, gaps included.
  [[nodiscard]] std::vector<std::byte>& memory() { return memory_; }
  [[nodiscard]] float At(int64_t row, int64_t column) const {
    return GetFlat(static_cast<size_t>(row * stride_ + column));
  }
  void Set(int64_t row, int64_t column, float value) { SetFlat(static_cast<size_t>(row * stride_ + column), value); }
  [[nodiscard]] int64_t rows() const { return shape_[0]; }
  [[nodiscard]] int64_t columns() const { return shape_.row_elements(); }

  /// Normally distributed values of standard deviation `sigma`.
  HostTensor& Randomise(std::mt19937& random, float sigma = 1, float mean = 0) {
    std::normal_distribution<float> normal(mean, sigma);
    for (int64_t i = 0; i < rows(); ++i) {
      for (int64_t j = 0; j < columns(); ++j) Set(i, j, normal(random));
    }
    return *this;
  }

  /// Whether nothing was written between the rows.
  [[nodiscard]] bool GapsUntouched() const {
    for (int64_t i = 0; i < rows(); ++i) {
      for (int64_t j = columns(); j < stride_; ++j) {
        if (!std::isnan(At(i, j))) return false;
      }
    }
    return true;
  }

  /// The largest absolute value; NaN when there is one.
  [[nodiscard]] double Largest() const {
    double largest = 0;
    for (int64_t i = 0; i < rows(); ++i) {
      for (int64_t j = 0; j < columns(); ++j) {
        const double value = std::abs(At(i, j));
        if (!(value <= largest)) largest = value;
      }
    }
    return largest;
  }

 private:
  [[nodiscard]] float GetFlat(size_t i) const {
    return Dispatch(dtype_, [&](auto zero) {
      return static_cast<float>(reinterpret_cast<const decltype(zero)*>(memory_.data())[i]);
    });
  }
  void SetFlat(size_t i, float value) {
    Dispatch(dtype_, [&](auto zero) {
      using T = decltype(zero);
      reinterpret_cast<T*>(memory_.data())[i] = T(value);
    });
  }

  DType dtype_;
  Shape shape_;
  int64_t stride_;
  std::vector<std::byte> memory_;
};

/// The error to expect of a sum of `terms` products whose norms multiply to `norm` (the root of the sum of squares of
/// the products, times sqrt(terms), bounds the sum of their absolute values): operands and the result rounded to
/// `dtype`, f32 sums. Rounding errors are independent, so that they grow with the square root of their number; six
/// standard deviations.
inline double SumTolerance(DType dtype, int64_t terms, double norm) {
  const double storage = UnitRoundoff(dtype);
  const double arithmetic = UnitRoundoff(DType::kF32) * std::sqrt(static_cast<double>(terms) + 1);
  return 6 * norm * (storage + arithmetic);
}

/// Expects |actual - expected| <= tolerance(row, column) for every element, and no NaN.
template <typename Tolerance>
void ExpectNear(const HostTensor& actual, const HostTensor& expected, const Tolerance& tolerance,
                const std::string& what) {
  ASSERT_EQ(actual.rows(), expected.rows());
  ASSERT_EQ(actual.columns(), expected.columns());
  int reported = 0;
  for (int64_t i = 0; i < actual.rows(); ++i) {
    for (int64_t j = 0; j < actual.columns(); ++j) {
      const double difference = std::abs(double{actual.At(i, j)} - double{expected.At(i, j)});
      const double allowed = tolerance(i, j);
      if (difference <= allowed) continue;
      ADD_FAILURE() << what << ": [" << i << ", " << j << "] is " << actual.At(i, j) << ", not " << expected.At(i, j)
                    << " within " << allowed;
      if (++reported == 3) return;
    }
  }
  EXPECT_TRUE(actual.GapsUntouched()) << what << ": wrote between rows";
}

/// Experts of random weights with so many features each, prepared by `ops`.
inline std::vector<Expert> RandomExperts(Ops& ops, std::mt19937& random, DType dtype, int64_t hidden,
                                         std::span<const int64_t> features, bool biased = false) {
  const auto prepare = [&](int64_t out, int64_t in) {
    HostTensor weights(dtype, {out, in});
    weights.Randomise(random, 1 / std::sqrt(static_cast<float>(in)));
    LinearPart part;
    part.weights = {weights.view()};
    HostTensor bias(dtype, {out});
    if (biased) part.biases = {bias.Randomise(random, 0.5f).view()};
    return ops.Prepare({part}, dtype);
  };
  std::vector<Expert> experts;
  for (const int64_t ffn : features) experts.push_back({prepare(2 * ffn, hidden), prepare(hidden, ffn)});
  return experts;
}

/// The fast operations with one and with two threads, and the oracle.
class OpsTest : public ::testing::Test {
 protected:
  OpsTest()
      : device(MakeCpuDevice()),
        stream(device->NewStream()),
        oracle(MakeScalarOps(*device)),
        one(MakeCpuOps(*device, 1)),
        two(MakeCpuOps(*device, 2)) {}

  std::unique_ptr<Device> device;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<Ops> oracle;
  std::unique_ptr<Ops> one;
  std::unique_ptr<Ops> two;
  std::mt19937 random{20240731};
};

}  // namespace runahead::testing
