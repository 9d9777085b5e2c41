// Matrix products on a GPU against the oracle: stacked parts, biases, mixed dtypes, odd sizes, one row.
#include "tests/ops/cuda/cuda_testing.h"

namespace runahead::testing {
namespace {

/// Unit normal operands: a product's norm is sqrt(terms).
double Tolerance(DType compute, DType result, int64_t in_features, double expected) {
  const double norm = std::sqrt(static_cast<double>(in_features) + 1);
  // A bias joins in the result's dtype.
  return SumTolerance(DType::kF32, in_features, norm) + UnitRoundoff(result) * (2 * std::abs(expected) + 8) +
         (compute == DType::kF16 ? 0x1p-24 : 0.0);
}

class CudaMatmulTest : public CudaOpsTest {
 protected:
  /// `parts`: the rows of each part's matrices.
  void Compare(DType compute, DType stored, DType result, int64_t rows, int64_t in_features,
               const std::vector<std::vector<int64_t>>& parts, bool biased, int64_t gap, bool tuned = false) {
    std::vector<HostTensor> hosts;
    hosts.reserve(64);
    std::vector<LinearPart> prepared;
    for (const std::vector<int64_t>& part : parts) {
      LinearPart& linear = prepared.emplace_back();
      for (const int64_t n : part) {
        linear.weights.push_back(hosts.emplace_back(stored, Shape{n, in_features}).Randomise(random).view());
        if (biased) linear.biases.push_back(hosts.emplace_back(stored, Shape{n}).Randomise(random).view());
      }
    }
    const auto fast = gpu->Prepare(prepared, compute);
    const auto slow = oracle->Prepare(prepared, compute);
    const Linear* const alike = fast.get();
    if (tuned) gpu->Tune(std::span(&alike, 1), rows, result, false, *gpu_stream);
    HostTensor x(compute, {rows, in_features}, gap);
    x.Randomise(random);
    Mirror gpu_x = Put(x);
    for (int first = 0; first < fast->parts(); ++first) {
      for (int count = 1; first + count <= fast->parts(); ++count) {
        const int64_t out_features = fast->out_features(first, count);
        HostTensor expected(result, {rows, out_features});
        HostTensor actual(result, {rows, out_features}, gap);
        Mirror gpu_actual = Put(actual);
        oracle->Matmul(x.view(), *slow, first, count, expected.view(), *stream);
        gpu->Matmul(gpu_x.view(), *fast, first, count, gpu_actual.view(), *gpu_stream);
        gpu_actual.Fetch();
        ExpectNear(
            actual, expected,
            [&](int64_t i, int64_t j) { return Tolerance(compute, result, in_features, expected.At(i, j)); },
            fmt::format("matmul {} from {} to {}, {}x{}, parts {}+{}, gap {}", Name(compute), Name(stored),
                        Name(result), rows, in_features, first, count, gap));
      }
    }
  }
};

TEST_F(CudaMatmulTest, DTypesPartsAndBiases) {
  for (const DType compute : kAllDTypes) {
    for (const DType stored : kAllDTypes) {
      for (const bool biased : {false, true}) {
        for (const int64_t rows : {1, 2, 37}) {
          Compare(compute, stored, compute, rows, 192, {{96}, {32, 32}}, biased, 8);
          Compare(compute, stored, DType::kF32, rows, 192, {{40}}, biased, 0);
        }
      }
    }
  }
}

TEST_F(CudaMatmulTest, EveryHeadByItsPart) {
  for (const DType dtype : kAllDTypes) {
    for (const auto& [heads, in, out] :
         {std::tuple<int64_t, int64_t, int64_t>{16, 128, 512}, {4, 10, 24}, {1, 64, 8}}) {
      std::vector<HostTensor> maps;
      std::vector<LinearPart> parts(static_cast<size_t>(heads));
      for (size_t i = 0; i < parts.size(); ++i) maps.emplace_back(dtype, Shape{out, in}).Randomise(random);
      for (size_t i = 0; i < parts.size(); ++i) parts[i].weights = {maps[i].view()};
      const auto fast = gpu->Prepare(parts, dtype);
      const auto slow = oracle->Prepare(parts, dtype);
      for (const int64_t rows : {1, 3, 200}) {
        HostTensor x(dtype, {rows, heads * in}, 8);
        x.Randomise(random);
        Mirror gpu_x = Put(x);
        HostTensor expected(dtype, {rows, heads * out});
        HostTensor actual(dtype, {rows, heads * out}, 16);
        Mirror gpu_actual = Put(actual);
        oracle->MatmulByHead(x.view(), *slow, expected.view(), *stream);
        gpu->MatmulByHead(gpu_x.view(), *fast, gpu_actual.view(), *gpu_stream);
        gpu_actual.Fetch();
        ExpectNear(
            actual, expected, [&](int64_t i, int64_t j) { return Tolerance(dtype, dtype, in, expected.At(i, j)); },
            fmt::format("{} heads of {} by {}, {} rows of {}", heads, in, out, rows, Name(dtype)));
      }
    }
  }
}

TEST_F(CudaMatmulTest, OddSizes) {
  for (const DType compute : kAllDTypes) {
    for (const int64_t rows : {1, 3, 130}) {
      Compare(compute, compute, compute, rows, 5, {{7}}, true, 3);
      Compare(compute, compute, compute, rows, 77, {{51}, {13, 1}}, false, 1);
      Compare(compute, compute, DType::kF32, rows, 130, {{1}, {2}}, false, 3);
    }
  }
}

TEST_F(CudaMatmulTest, WidthsOfRealModels) {
  for (const DType compute : {DType::kBF16, DType::kF16}) {
    for (const int64_t rows : {1, 5}) {
      Compare(compute, compute, compute, rows, 4096, {{256}, {64, 64}}, false, 0);
      Compare(compute, compute, compute, rows, 11008, {{128}}, false, 0);
      Compare(compute, compute, DType::kF32, rows, 4544, {{333}}, false, 0);
    }
  }
}

// One row has a kernel whose blocks each take several rows of the weights: as many as fit, one more, and chunks of
// the row that end anywhere; few rows of weights are shared by the warps of a block.
TEST_F(CudaMatmulTest, OneRowOfManySizes) {
  for (const DType compute : kAllDTypes) {
    for (const int64_t in_features : {8, 520, 1024, 2056}) {
      for (const int64_t out_features : {1, 8, 9, 2112, 2113}) {
        Compare(compute, compute, compute, 1, in_features, {{out_features}}, out_features % 2 == 0, 0);
      }
    }
    Compare(compute, compute, DType::kF32, 1, 64, {{33000}}, false, 0);
  }
}

class CudaActivatedMatmulTest : public CudaOpsTest {
 protected:
  /// The error of a product of operands whose sums have norm 2, the bias included.
  static double ProductError(DType dtype, int64_t in_features, double value) {
    return SumTolerance(DType::kF32, in_features, 2) + UnitRoundoff(dtype) * (2 * std::abs(value) + 8) +
           (dtype == DType::kF16 ? 0x1p-24 : 0.0);
  }

  void Compare(DType dtype, Activation activation, bool gated, bool biased, int64_t rows, int64_t in_features,
               int64_t features) {
    const int64_t width = gated ? 2 * features : features;
    HostTensor weights(dtype, {width, in_features});
    HostTensor bias(dtype, {width});
    weights.Randomise(random, 1 / std::sqrt(static_cast<float>(in_features)));
    bias.Randomise(random);
    LinearPart part{{weights.view()}, {}};
    if (biased) part.biases.push_back(bias.view());
    const auto fast = gpu->Prepare({part}, dtype);
    const auto slow = oracle->Prepare({part}, dtype);
    HostTensor x(dtype, {rows, in_features}, 8);
    x.Randomise(random);
    HostTensor product(dtype, {rows, width});
    HostTensor gpu_product(dtype, {rows, width});
    HostTensor expected(dtype, {rows, features});
    HostTensor actual(dtype, {rows, features}, 8);
    Mirror gpu_x = Put(x);
    Mirror gpu_room = Put(gpu_product);
    Mirror gpu_actual = Put(actual);
    oracle->MatmulActivate(x.view(), *slow, activation, product.view(), expected.view(), *stream);
    gpu->MatmulActivate(gpu_x.view(), *fast, activation, gpu_room.view(), gpu_actual.view(), *gpu_stream);
    gpu_actual.Fetch();
    ExpectNear(
        actual, expected,
        [&](int64_t i, int64_t j) {
          // Slopes of activations are at most 1.13, and |activation(x)| <= |x|.
          const double gate = product.At(i, j);
          const double up = gated ? product.At(i, features + j) : 1;
          const double gate_error = ProductError(dtype, in_features, gate);
          const double up_error = gated ? ProductError(dtype, in_features, up) : 0;
          return 1.2 * gate_error * std::abs(up) + std::abs(gate) * up_error + gate_error * up_error +
                 4 * UnitRoundoff(dtype) * std::abs(expected.At(i, j)) + 1e-5 * std::abs(gate * up);
        },
        fmt::format("{} activated matmul {}, {}, {} x {} -> {}", Name(dtype), static_cast<int>(activation),
                    gated ? "gated" : "plain", rows, in_features, features));
  }
};

TEST_F(CudaActivatedMatmulTest, MatchesOracle) {
  for (const DType dtype : kAllDTypes) {
    for (const Activation activation : kAllActivations) {
      for (const bool gated : {false, true}) {
        for (const int64_t rows : {1, 3}) {
          Compare(dtype, activation, gated, false, rows, 256, 1100);
          Compare(dtype, activation, gated, true, rows, 1096, 77);
          Compare(dtype, activation, gated, true, rows, 13, 9);
        }
      }
    }
    Compare(dtype, Activation::kSilu, true, false, 1, 2048, 2300);
  }
}

TEST_F(CudaMatmulTest, TunedAlgorithmsComputeTheSame) {
  for (const DType compute : kAllDTypes) {
    Compare(compute, compute, compute, 256, 256, {{320}}, false, 0, true);
    Compare(compute, compute, compute, 200, 256, {{320}}, true, 0, true);
  }
}

}  // namespace
}  // namespace runahead::testing
