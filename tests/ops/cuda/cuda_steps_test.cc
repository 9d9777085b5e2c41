// Several steps in one operation, on a GPU, against the oracle, which does them one after the other: for one row,
// where the GPU's products do what comes before and after them, and for a few.
#include "tests/ops/cuda/cuda_testing.h"

namespace runahead::testing {
namespace {

constexpr int64_t kPosition = 3;

class CudaStepsTest : public CudaOpsTest {
 protected:
  /// A matrix with outputs of variance 1, and biases of the same size, on both sides.
  struct Weights {
    Weights(CudaStepsTest& test, DType dtype, int64_t in_features, int64_t out_features, bool biased)
        : matrix(dtype, {out_features, in_features}), bias(dtype, {out_features}) {
      matrix.Randomise(test.random, 1 / std::sqrt(static_cast<float>(in_features)));
      bias.Randomise(test.random);
      LinearPart part{{matrix.view()}, {}};
      if (biased) part.biases.push_back(bias.view());
      on_gpu = gpu->Prepare({part}, dtype);
      on_host = test.oracle->Prepare({part}, dtype);
    }
    HostTensor matrix;
    HostTensor bias;
    std::unique_ptr<Linear> on_gpu;
    std::unique_ptr<Linear> on_host;
  };

  /// A norm with gains and biases of variance 1, on both sides.
  struct Norms {
    Norms(CudaStepsTest& test, NormKind kind, int64_t features, bool biased)
        : weight(DType::kF32, {features}), bias(DType::kF32, {features}) {
      weight.Randomise(test.random);
      bias.Randomise(test.random);
      gpu_weight = std::make_unique<Mirror>(Put(weight));
      gpu_bias = std::make_unique<Mirror>(Put(bias));
      on_host = MakeNorm(kind, weight.view(), biased ? bias.view() : TensorView());
      on_gpu = MakeNorm(kind, gpu_weight->view(), biased ? gpu_bias->view() : TensorView());
    }
    HostTensor weight;
    HostTensor bias;
    std::unique_ptr<Mirror> gpu_weight;
    std::unique_ptr<Mirror> gpu_bias;
    Norm on_host;
    Norm on_gpu;
  };

  /// A tensor of random numbers and its copy on the GPU, where the operation under test works.
  struct Pair {
    Pair(CudaStepsTest& test, DType dtype, const Shape& shape, float sigma = 1, float mean = 0)
        : host(HostTensor(dtype, shape).Randomise(test.random, sigma, mean)), actual(host), mirror(Put(actual)) {}
    HostTensor host;
    HostTensor actual;
    Mirror mirror;
  };

  static void ExpectPairNear(Pair& pair, double allowed, const std::string& what) {
    pair.mirror.Fetch();
    ExpectNear(
        pair.actual, pair.host, [&](int64_t, int64_t) { return allowed; }, what);
  }

  /// The error of a sum of `terms` products whose norm is at most 6, whose operands may each be rounded the other way
  /// than the oracle's, rounded to `dtype` as a number of at most `largest`.
  static double SumError(DType dtype, int64_t terms, double largest) {
    return SumTolerance(DType::kF32, terms, 6) + UnitRoundoff(dtype) * (12 + 2 * largest) +
           (dtype == DType::kF16 ? 0x1p-24 : 0.0);
  }

  void CompareAdd(DType dtype, int64_t rows, int64_t in_features, int64_t out_features, bool biased) {
    const Weights weights(*this, dtype, in_features, out_features, biased);
    Pair x(*this, dtype, {rows, in_features});
    Pair sum(*this, dtype, {rows, out_features}, 2);
    Pair room(*this, dtype, {rows, out_features});
    oracle->MatmulAdd(x.host.view(), *weights.on_host, room.host.view(), sum.host.view(), *stream);
    gpu->MatmulAdd(x.mirror.view(), *weights.on_gpu, room.mirror.view(), sum.mirror.view(), *gpu_stream);
    ExpectPairNear(sum, SumError(dtype, in_features, sum.host.Largest()),
                   fmt::format("{} {}x{} -> {}", Name(dtype), rows, in_features, out_features));
  }

  void CompareActivate(DType dtype, NormKind kind, bool gated, bool biased, int64_t rows, int64_t in_features,
                       int64_t features) {
    const Weights weights(*this, dtype, in_features, gated ? 2 * features : features, biased);
    const Norms norm(*this, kind, in_features, biased);
    Pair x(*this, dtype, {rows, in_features}, 2, 3);
    Pair normalized(*this, dtype, {rows, in_features});
    Pair product(*this, dtype, {rows, weights.on_host->out_features()});
    Pair out(*this, dtype, {rows, features});
    oracle->NormalizeMatmulActivate(x.host.view(), norm.on_host, normalized.host.view(), *weights.on_host,
                                    Activation::kSilu, product.host.view(), out.host.view(), *stream);
    gpu->NormalizeMatmulActivate(x.mirror.view(), norm.on_gpu, normalized.mirror.view(), *weights.on_gpu,
                                 Activation::kSilu, product.mirror.view(), out.mirror.view(), *gpu_stream);
    const std::string what = fmt::format("{} norm {} {}x{} -> {}{}", Name(dtype), static_cast<int>(kind), rows,
                                         in_features, features, gated ? ", gated" : "");
    ExpectPairNear(normalized, NormError(dtype, in_features, normalized.host), "normalized, " + what);
    // The slope of silu is at most 1.1.
    const double factor = gated ? 2.2 * product.host.Largest() : 1.1;
    const double error = SumError(dtype, in_features, product.host.Largest());
    ExpectPairNear(out, error * factor + error * error + UnitRoundoff(dtype) * 2 * out.host.Largest(), what);
  }

  void CompareProject(DType dtype, NormKind kind, bool biased, int64_t rows, int64_t in_features, int64_t head_dim,
                      int64_t rotary_dim, int64_t kv_heads, bool normed_heads) {
    const int64_t q_heads = 2 * kv_heads;
    const int64_t q_features = q_heads * head_dim;
    const int64_t kv_features = kv_heads * head_dim;
    const Weights weights(*this, dtype, in_features, q_features + 2 * kv_features, biased);
    const Norms norm(*this, kind, in_features, biased);
    const Norms head_norm(*this, NormKind::kRms, head_dim, false);
    Pair angles(*this, DType::kF32, {kPosition + rows, std::max<int64_t>(rotary_dim / 2, 1)}, 0.5f);
    RopeTable rope;
    rope.cos.view = rope.sin.view = angles.host.view();
    RopeTable gpu_rope;
    gpu_rope.cos.view = gpu_rope.sin.view = angles.mirror.view();
    Pair x(*this, dtype, {rows, in_features}, 2, 3);
    Pair normalized(*this, dtype, {rows, in_features});
    Pair qkv(*this, dtype, {rows, q_features + 2 * kv_features});
    Pair keys(*this, dtype, {rows, kv_heads, head_dim});
    Pair values(*this, dtype, {rows, kv_heads, head_dim});
    const auto project = [&](Ops& ops, const auto& view, const Norm& row, const Norm& head, const RopeTable& table,
                             const Linear& linear, Stream& on) {
      const TensorView columns = view(qkv);
      const HeadSteps steps{normed_heads ? &head : nullptr, rotary_dim > 0 ? &table : nullptr};
      const HeadRows heads{
          columns.Columns(0, q_features).SplitRows(q_heads, head_dim),
          columns.Columns(q_features, q_features + kv_features).SplitRows(kv_heads, head_dim),
          columns.Columns(q_features + kv_features, columns.row_elements()).SplitRows(kv_heads, head_dim),
          steps,
          steps,
          {0, kPosition, kPosition + rows, view(keys), view(values)}};
      ops.ProjectHeads(view(x), row, view(normalized), linear, columns, heads, on);
    };
    project(
        *oracle, [](Pair& pair) { return pair.host.view(); }, norm.on_host, head_norm.on_host, rope, *weights.on_host,
        *stream);
    project(
        *gpu, [](Pair& pair) { return pair.mirror.view(); }, norm.on_gpu, head_norm.on_gpu, gpu_rope, *weights.on_gpu,
        *gpu_stream);
    const std::string what =
        fmt::format("{} norm {} {}x{}, {} heads of {}, rotary {}{}", Name(dtype), static_cast<int>(kind), rows,
                    in_features, kv_heads, head_dim, rotary_dim, normed_heads ? ", normed" : "");
    ExpectPairNear(normalized, NormError(dtype, in_features, normalized.host), "normalized, " + what);
    // A head's norm divides by about 1 and multiplies by gains below 5; a rotation by cosines of 0.5 (5 sigma) adds
    // two.
    const double error = (normed_heads ? 8 : 1) * 4 * SumError(dtype, in_features, qkv.host.Largest());
    qkv.mirror.Fetch();
    HostTensor queries(dtype, {rows, q_features});
    HostTensor expected_queries = queries;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < q_features; ++j) {
        queries.Set(i, j, qkv.actual.At(i, j));
        expected_queries.Set(i, j, qkv.host.At(i, j));
      }
    }
    ExpectNear(
        queries, expected_queries, [&](int64_t, int64_t) { return error; }, "queries, " + what);
    ExpectPairNear(keys, error, "keys, " + what);
    ExpectPairNear(values, error, "values, " + what);
  }

 private:
  /// The mean (3) cancels and leaves its own rounding; gains are below 5.
  static double NormError(DType dtype, int64_t features, const HostTensor& result) {
    return 2 * UnitRoundoff(dtype) * result.Largest() + SumTolerance(DType::kF32, features, 5 * 4 + 5);
  }
};

TEST_F(CudaStepsTest, AddsProductsToASum) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t rows : {1, 3, 8, 130}) {
      for (const bool biased : {false, true}) {
        CompareAdd(dtype, rows, 256, 2300, biased);
        CompareAdd(dtype, rows, 1096, 77, biased);
        CompareAdd(dtype, rows, 8, 40, biased);
        CompareAdd(dtype, rows, 1032, 515, biased);
        CompareAdd(dtype, rows, 13, 9, biased);
      }
    }
  }
}

TEST_F(CudaStepsTest, NormalizesMultipliesAndActivates) {
  for (const DType dtype : kAllDTypes) {
    for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
      for (const bool gated : {false, true}) {
        for (const bool biased : {false, true}) {
          for (const int64_t rows : {1, 3, 8}) {
            CompareActivate(dtype, kind, gated, biased, rows, 256, 2300);
            CompareActivate(dtype, kind, gated, biased, rows, 1096, 77);
            CompareActivate(dtype, kind, gated, biased, rows, 13, 9);
          }
        }
      }
    }
    CompareActivate(dtype, NormKind::kLayer, true, true, 1, 8192, 40);  // gains and x fill the shared memory
  }
}

// So many outputs that a block of a few rows' product works on several tiles, the last of them cut off.
TEST_F(CudaStepsTest, AddsProductsOfFewRowsOfManyOutputs) {
  CompareAdd(DType::kBF16, 5, 136, 9003, true);
  CompareActivate(DType::kBF16, NormKind::kRms, true, true, 7, 136, 4501);
}

TEST_F(CudaStepsTest, ProjectsRotatesAndAppends) {
  for (const DType dtype : kAllDTypes) {
    for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
      for (const bool biased : {false, true}) {
        for (const int64_t rows : {1, 3}) {
          for (const auto& [head_dim, rotary_dim] :
               {std::pair<int64_t, int64_t>{64, 64}, {96, 32}, {10, 10}, {128, 128}, {64, 0}}) {
            CompareProject(dtype, kind, biased, rows, 264, head_dim, rotary_dim, 1, false);
            CompareProject(dtype, kind, biased, rows, 520, head_dim, rotary_dim, 9, false);
          }
          CompareProject(dtype, kind, biased, rows, 264, 64, 64, 3, true);
          CompareProject(dtype, kind, biased, rows, 13, 64, 64, 2, false);
        }
      }
    }
  }
}

}  // namespace
}  // namespace runahead::testing
