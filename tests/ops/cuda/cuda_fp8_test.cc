// Products of weights in fp8 on a GPU against the oracle, which multiplies the same e4m3 numbers in f32: all rows,
// widths, parts and steps around a product.
#include "runahead/error.h"
#include "tests/ops/cuda/cuda_testing.h"

namespace runahead::testing {
namespace {

constexpr int64_t kMostFewRows = 8;  // rows that meet the weights as they are, in 16 bits

/// The nearest e4m3, ties to even (Micikevicius et al. 2022, table 1).
float ToE4M3(float x) {
  constexpr float kLargest = 448;
  constexpr int kLeastExponent = -6;
  constexpr int kMantissaBits = 3;
  if (x == 0 || std::isnan(x)) return x;
  const int exponent = std::max(std::ilogb(x), kLeastExponent);
  const float step = std::ldexp(1.0F, exponent - kMantissaBits);
  return std::clamp(std::nearbyint(x / step) * step, -kLargest, kLargest);
}

/// Rows times what e4m3 with a scale for each makes of them.
HostTensor Quantised(HostTensor& from) {
  constexpr float kLargest = 448;
  HostTensor to(DType::kF32, {from.rows(), from.columns()});
  for (int64_t i = 0; i < from.rows(); ++i) {
    float largest = 0;
    for (int64_t j = 0; j < from.columns(); ++j) largest = std::max(largest, std::abs(from.At(i, j)));
    const float factor = largest == 0 ? 0 : kLargest / largest;
    for (int64_t j = 0; j < from.columns(); ++j) {
      to.Set(i, j, ToE4M3(from.At(i, j) * factor) * (largest / kLargest));
    }
  }
  return to;
}

/// The same numbers in f32.
HostTensor Widened(HostTensor& from) {
  HostTensor to(DType::kF32, {from.rows(), from.columns()});
  for (int64_t i = 0; i < from.rows(); ++i) {
    for (int64_t j = 0; j < from.columns(); ++j) to.Set(i, j, from.At(i, j));
  }
  return to;
}

struct Case {
  DType compute = DType::kBF16;
  DType result = DType::kBF16;
  int64_t rows = 1;
  int64_t in_features = 64;
  std::vector<std::vector<int64_t>> parts = {{64}};  // rows of each part's matrices
  bool biased = false;
  int64_t gap = 0;  // elements between rows of x and of y
  bool tuned = false;

  /// Whether x becomes e4m3: few rows that vectors can read do not.
  [[nodiscard]] bool codes() const {
    return compute == DType::kF32 || rows > kMostFewRows || (rows > 1 && gap % 8 != 0);
  }
};

class CudaFp8Test : public CudaOpsTest {
 protected:
  void SetUp() override {
    CudaOpsTest::SetUp();
    if (IsSkipped()) return;
    HostTensor weights(DType::kF32, {16, 16});
    weights.Randomise(random);
    try {
      (void)gpu->Prepare({{{weights.view()}, {}}}, DType::kBF16, WeightFormat::kFp8);
    } catch (const ConfigError& refusal) {
      EXPECT_NE(std::string(refusal.what()).find("8.9"), std::string::npos);
      GTEST_SKIP() << refusal.what();
    }
  }

  /// Weights of a layer as both multiply them. A matrix's rows differ in magnitude, so that no scale stands for
  /// another.
  struct Layer {
    std::unique_ptr<Linear> fast;
    std::unique_ptr<Linear> slow;
  };
  Layer Prepare(const Case& c, DType stored, Ops& ops) {
    std::vector<HostTensor> hosts;
    hosts.reserve(128);
    std::vector<LinearPart> given;
    std::vector<LinearPart> wanted;
    for (const std::vector<int64_t>& part : c.parts) {
      LinearPart& as_given = given.emplace_back();
      LinearPart& as_wanted = wanted.emplace_back();
      for (const int64_t n : part) {
        HostTensor& weights = hosts.emplace_back(stored, Shape{n, c.in_features}).Randomise(random);
        for (int64_t i = 0; i < n; ++i) {
          const float magnitude = std::ldexp(1.0F, -static_cast<int>(i % 3));
          for (int64_t j = 0; j < c.in_features; ++j) weights.Set(i, j, weights.At(i, j) * magnitude);
        }
        as_given.weights.push_back(weights.view());
        as_wanted.weights.push_back(hosts.emplace_back(Quantised(weights)).view());
        if (!c.biased) continue;
        as_given.biases.push_back(hosts.emplace_back(c.compute, Shape{n}).Randomise(random).view());
        as_wanted.biases.push_back(as_given.biases.back());
      }
    }
    return {ops.Prepare(given, c.compute, WeightFormat::kFp8), oracle->Prepare(wanted, DType::kF32)};
  }

  /// x as the oracle multiplies it.
  static HostTensor Met(const Case& c, HostTensor& x) { return c.codes() ? Quantised(x) : Widened(x); }

  /// Unit normal operands: a product's norm is sqrt(terms). Tensor cores that add e4m3 keep 13 bits behind the
  /// largest of their sums and cut the rest off, once for each 32 terms.
  static double Tolerance(const Case& c, double expected) {
    constexpr double kCut = 0x1p-13;
    constexpr double kTermsAtOnce = 32;
    const double norm = std::sqrt(static_cast<double>(c.in_features) + 1);
    const double cuts = c.codes() ? (static_cast<double>(c.in_features) / kTermsAtOnce + 1) * kCut * 6 * norm : 0;
    return cuts + SumTolerance(DType::kF32, c.in_features, norm) +
           UnitRoundoff(c.result) * (2 * std::abs(expected) + 8) + (c.compute == DType::kF16 ? 0x1p-24 : 0.0);
  }

  static std::string Text(const Case& c) {
    return fmt::format("{} to {}, {}x{}, {} parts, {}biased, gap {}", Name(c.compute), Name(c.result), c.rows,
                       c.in_features, c.parts.size(), c.biased ? "" : "un", c.gap);
  }

  void Compare(const Case& c, DType stored = DType::kBF16) {
    const Layer layer = Prepare(c, stored, *gpu);
    const Linear* const alike = layer.fast.get();
    if (c.tuned) gpu->Tune(std::span(&alike, 1), c.rows, c.result, false, *gpu_stream);
    HostTensor x(c.compute, {c.rows, c.in_features}, c.gap);
    x.Randomise(random);
    HostTensor met = Met(c, x);
    Mirror gpu_x = Put(x);
    for (int first = 0; first < layer.fast->parts(); ++first) {
      for (int count = 1; first + count <= layer.fast->parts(); ++count) {
        const int64_t out_features = layer.fast->out_features(first, count);
        HostTensor expected(DType::kF32, {c.rows, out_features});
        HostTensor actual(c.result, {c.rows, out_features}, c.gap);
        Mirror gpu_actual = Put(actual);
        oracle->Matmul(met.view(), *layer.slow, first, count, expected.view(), *stream);
        gpu->Matmul(gpu_x.view(), *layer.fast, first, count, gpu_actual.view(), *gpu_stream);
        gpu_actual.Fetch();
        ExpectNear(
            actual, expected, [&](int64_t i, int64_t j) { return Tolerance(c, expected.At(i, j)); },
            fmt::format("{}, parts {}+{}", Text(c), first, count));
        constexpr int64_t kMany = 64;  // elements enough that their sum of squares is not small by chance
        if (c.rows * out_features >= kMany) {
          EXPECT_LT(RelativeError(actual, expected), 0.03) << Text(c);
        }
      }
    }
  }

  /// The root of the mean square of the errors over that of what is expected.
  static double RelativeError(const HostTensor& actual, const HostTensor& expected) {
    double errors = 0;
    double squares = 0;
    for (int64_t i = 0; i < actual.rows(); ++i) {
      for (int64_t j = 0; j < actual.columns(); ++j) {
        errors += std::pow(double{actual.At(i, j)} - expected.At(i, j), 2);
        squares += std::pow(double{expected.At(i, j)}, 2);
      }
    }
    return std::sqrt(errors / squares);
  }
};

TEST_F(CudaFp8Test, DTypesPartsAndBiases) {
  for (const DType compute : kAllDTypes) {
    for (const bool biased : {false, true}) {
      for (const int64_t rows : {1, 2, 8, 9, 16, 17, 300}) {
        Compare({compute, compute, rows, 192, {{96}, {32, 32}}, biased, 8});
        Compare({compute, DType::kF32, rows, 192, {{48}}, biased, 0});
      }
      for (const DType stored : kAllDTypes) Compare({compute, compute, 37, 64, {{64}}, biased, 0}, stored);
    }
  }
}

// Rows that no vector reads, outputs that no tile ends with, and parts that begin anywhere.
TEST_F(CudaFp8Test, OddSizes) {
  for (const DType compute : kAllDTypes) {
    for (const int64_t rows : {1, 3, 7, 8, 10, 130}) {
      Compare({compute, compute, rows, 16, {{7}}, true, 3});
      Compare({compute, compute, rows, 48, {{51}, {13, 1}}, false, 1});
      Compare({compute, DType::kF32, rows, 144, {{1}, {2}}, false, 3});
      Compare({compute, compute, rows, 2064, {{24}, {8}}, true, 0});
    }
  }
}

TEST_F(CudaFp8Test, WidthsOfRealModels) {
  for (const DType compute : {DType::kBF16, DType::kF16}) {
    for (const int64_t rows : {1, 5, 8, 40}) {
      Compare({compute, compute, rows, 4096, {{256}, {64, 64}}, false, 0});
      Compare({compute, compute, rows, 11008, {{128}}, false, 0});
      Compare({compute, compute, rows, 14336, {{96}}, true, 0});
    }
    Compare({compute, compute, 260, 4096, {{64}}, false, 0});
    Compare({compute, compute, 1, 4096, {{2112}}, false, 0});
    Compare({compute, compute, 3, 4096, {{4096 + 16}}, false, 0});
    Compare({compute, DType::kF32, 1, 64, {{33000}}, false, 0});
  }
}

// More rows than are quantised at a time.
TEST_F(CudaFp8Test, ManyRows) {
  Compare({DType::kBF16, DType::kBF16, 8200, 64, {{48}}, false, 0});
  Compare({DType::kBF16, DType::kBF16, 8200, 64, {{47}}, true, 1});
}

TEST_F(CudaFp8Test, TunedAlgorithmsComputeTheSame) {
  for (const int64_t rows : {2, 64, 256, 1000}) {
    Compare({DType::kBF16, DType::kBF16, rows, 256, {{320}}, false, 0, true});
    Compare({DType::kF16, DType::kF16, rows, 256, {{320}}, true, 0, true});
  }
}

TEST_F(CudaFp8Test, OtherWidthsStayInTheComputeDType) {
  for (const DType compute : kAllDTypes) {
    for (const int64_t rows : {1, 5, 40}) {
      constexpr int64_t kWidth = 72;
      HostTensor weights(compute, {32, kWidth});
      HostTensor x(compute, {rows, kWidth});
      weights.Randomise(random);
      x.Randomise(random);
      const auto fast = gpu->Prepare({{{weights.view()}, {}}}, compute, WeightFormat::kFp8);
      const auto slow = oracle->Prepare({{{weights.view()}, {}}}, compute);
      HostTensor expected(compute, {rows, 32});
      HostTensor actual(compute, {rows, 32});
      Mirror gpu_x = Put(x);
      Mirror gpu_actual = Put(actual);
      oracle->Matmul(x.view(), *slow, expected.view(), *stream);
      gpu->Matmul(gpu_x.view(), *fast, gpu_actual.view(), *gpu_stream);
      gpu_actual.Fetch();
      ExpectNear(
          actual, expected,
          [&](int64_t i, int64_t j) {
            return SumTolerance(DType::kF32, kWidth, std::sqrt(1.0 * kWidth)) +
                   UnitRoundoff(compute) * (2 * std::abs(expected.At(i, j)) + 8);
          },
          fmt::format("{} of {}", rows, Name(compute)));
    }
  }
}

TEST_F(CudaFp8Test, AddsToWhatIsThere) {
  for (const DType compute : kAllDTypes) {
    for (const int64_t rows : {1, 4, 20, 257}) {
      for (const int64_t out_features : {64, 35}) {
        const Case c{compute, compute, rows, 128, {{out_features}}, out_features == 64, out_features == 64 ? 8 : 1};
        const Layer layer = Prepare(c, compute, *gpu);
        HostTensor x(compute, {rows, c.in_features}, c.gap);
        HostTensor sum(compute, {rows, out_features}, c.gap);
        HostTensor room(compute, {rows, out_features});
        HostTensor product(DType::kF32, {rows, out_features});
        x.Randomise(random);
        sum.Randomise(random);
        HostTensor met = Met(c, x);
        HostTensor expected = Widened(sum);
        oracle->Matmul(met.view(), *layer.slow, product.view(), *stream);
        oracle->Add(expected.view(), product.view(), *stream);
        Mirror gpu_x = Put(x);
        Mirror gpu_room = Put(room);
        Mirror gpu_sum = Put(sum);
        gpu->MatmulAdd(gpu_x.view(), *layer.fast, gpu_room.view(), gpu_sum.view(), *gpu_stream);
        gpu_sum.Fetch();
        ExpectNear(
            sum, expected,
            [&](int64_t i, int64_t j) {
              return Tolerance(c, expected.At(i, j)) + UnitRoundoff(compute) * std::abs(product.At(i, j));
            },
            "sum " + Text(c));
      }
    }
  }
}

// The steps around a product of one row, of a few, and of many: its norm before it and its activation behind it.
TEST_F(CudaFp8Test, NormsAndActivations) {
  for (const DType compute : {DType::kBF16, DType::kF16}) {
    for (const int64_t rows : {1, 6, 33}) {
      for (const bool gated : {false, true}) {
        constexpr int64_t kFeatures = 144;
        const Case c{compute, compute, rows, 512, {{gated ? 2 * kFeatures : kFeatures}}, true, 0};
        const Layer layer = Prepare(c, compute, *gpu);
        HostTensor x(compute, {rows, c.in_features});
        HostTensor gains(DType::kF32, {c.in_features});
        x.Randomise(random);
        gains.Randomise(random, 0.01F, 0.04F);
        const Norm norm = MakeNorm(NormKind::kRms, gains.view(), {});
        HostTensor normalized(compute, {rows, c.in_features});
        oracle->Normalize(x.view(), norm, normalized.view(), *stream);
        HostTensor met = Met(c, normalized);
        HostTensor product(DType::kF32, {rows, layer.fast->out_features()});
        HostTensor expected(DType::kF32, {rows, kFeatures});
        oracle->MatmulActivate(met.view(), *layer.slow, Activation::kSilu, product.view(), expected.view(), *stream);
        HostTensor room(compute, {rows, layer.fast->out_features()});
        HostTensor gpu_normalized(compute, {rows, c.in_features});
        HostTensor actual(compute, {rows, kFeatures});
        Mirror gpu_x = Put(x);
        Mirror gpu_gains = Put(gains);
        Mirror gpu_place = Put(gpu_normalized);
        Mirror gpu_room = Put(room);
        Mirror gpu_actual = Put(actual);
        gpu->NormalizeMatmulActivate(gpu_x.view(), MakeNorm(NormKind::kRms, gpu_gains.view(), {}), gpu_place.view(),
                                     *layer.fast, Activation::kSilu, gpu_room.view(), gpu_actual.view(), *gpu_stream);
        gpu_actual.Fetch();
        // A norm may round to the neighbour, and that to another e4m3.
        EXPECT_LT(RelativeError(actual, expected), 0.02) << Text(c) << (gated ? ", gated" : "");
      }
    }
  }
}

// Kernels in front of a product may leave its e4m3, which must be those of the rows that it is given.
TEST_F(CudaFp8Test, StepsInARowGiveTheBitsOfStepsAlone) {
  constexpr int64_t kWidth = 256;
  constexpr int64_t kFeatures = 192;
  for (const DType compute : kAllDTypes) {
    for (const int64_t rows : {9, 40}) {
      const Layer up = Prepare({compute, compute, rows, kWidth, {{2 * kFeatures}}, false, 0}, compute, *gpu);
      const Layer down = Prepare({compute, compute, rows, kFeatures, {{kWidth}}, false, 0}, compute, *gpu);
      HostTensor x(compute, {rows, kWidth});
      HostTensor gains(DType::kF32, {kWidth});
      x.Randomise(random);
      gains.Randomise(random, 0.01F, 1);
      Mirror gpu_gains = Put(gains);
      const Norm norm = MakeNorm(NormKind::kRms, gpu_gains.view(), {});
      std::vector<HostTensor> results;
      for (const bool alone : {false, true}) {
        HostTensor& sum = results.emplace_back(compute, Shape{rows, kWidth});
        for (int64_t i = 0; i < rows; ++i) {
          for (int64_t j = 0; j < kWidth; ++j) sum.Set(i, j, x.At(i, j));
        }
        HostTensor normalized(compute, {rows, kWidth});
        HostTensor product(compute, {rows, 2 * kFeatures});
        HostTensor activated(compute, {rows, kFeatures});
        HostTensor room(compute, {rows, kWidth});
        Mirror gpu_sum = Put(sum);
        Mirror gpu_normalized = Put(normalized);
        Mirror gpu_product = Put(product);
        Mirror gpu_activated = Put(activated);
        Mirror gpu_room = Put(room);
        if (alone) {
          gpu->Normalize(gpu_sum.view(), norm, gpu_normalized.view(), *gpu_stream);
          gpu->Matmul(gpu_normalized.view(), *up.fast, gpu_product.view(), *gpu_stream);
          gpu->GatedActivation(Activation::kSilu, gpu_product.view(), gpu_activated.view(), *gpu_stream);
        } else {
          gpu->NormalizeMatmulActivate(gpu_sum.view(), norm, gpu_normalized.view(), *up.fast, Activation::kSilu,
                                       gpu_product.view(), gpu_activated.view(), *gpu_stream);
        }
        gpu->MatmulAdd(gpu_activated.view(), *down.fast, gpu_room.view(), gpu_sum.view(), *gpu_stream);
        gpu_sum.Fetch();
      }
      ExpectNear(
          results[0], results[1], [](int64_t /*i*/, int64_t /*j*/) { return 0.0; },
          fmt::format("{} rows of {}", rows, Name(compute)));
      // Codes of rows that have changed since are not taken.
      HostTensor activated(compute, {rows, kFeatures});
      HostTensor product(compute, {rows, 2 * kFeatures});
      HostTensor delta(compute, {rows, kFeatures});
      HostTensor sum(compute, {rows, kWidth});
      delta.Randomise(random);
      sum.Randomise(random);
      Mirror gpu_x = Put(x);
      Mirror gpu_activated = Put(activated);
      Mirror gpu_product = Put(product);
      Mirror gpu_delta = Put(delta);
      Mirror gpu_first = Put(sum);
      Mirror gpu_second = Put(sum);
      gpu->MatmulActivate(gpu_x.view(), *up.fast, Activation::kSilu, gpu_product.view(), gpu_activated.view(),
                          *gpu_stream);
      gpu->Add(gpu_activated.view(), gpu_delta.view(), *gpu_stream);
      gpu->Matmul(gpu_activated.view(), *down.fast, gpu_first.view(), *gpu_stream);
      gpu->Matmul(gpu_activated.view(), *down.fast, gpu_second.view(), *gpu_stream);
      gpu_first.Fetch();
      HostTensor first = sum;
      gpu_second.Fetch();
      ExpectNear(
          first, sum, [](int64_t /*i*/, int64_t /*j*/) { return 0.0; }, "after a change");
    }
  }
}

TEST_F(CudaFp8Test, RowsDoNotDependOnOthersWhereDeterministic) {
  const std::unique_ptr<Ops> ops = MakeCudaOps(*gpu_device, 0, true);
  for (const int64_t out_features : {64, 41}) {
    const Case c{DType::kBF16, DType::kBF16, 300, 256, {{out_features}}, true, 0};
    const Layer layer = Prepare(c, c.compute, *ops);
    HostTensor x(c.compute, {c.rows, c.in_features});
    x.Randomise(random);
    HostTensor all(c.result, {c.rows, out_features});
    Mirror gpu_x = Put(x);
    Mirror gpu_all = Put(all);
    ops->Matmul(gpu_x.view(), *layer.fast, gpu_all.view(), *gpu_stream);
    gpu_all.Fetch();
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 1}, {5, 7}, {16, 33}, {100, 300}}) {
      HostTensor some(c.result, {end - begin, out_features});
      Mirror gpu_some = Put(some);
      ops->Matmul(gpu_x.view().Rows(begin, end), *layer.fast, gpu_some.view(), *gpu_stream);
      gpu_some.Fetch();
      for (int64_t i = 0; i < some.rows(); ++i) {
        for (int64_t j = 0; j < out_features; ++j) ASSERT_EQ(some.At(i, j), all.At(begin + i, j)) << i << ", " << j;
      }
    }
  }
}

// A checkpoint's own numbers: e4m3 times scales of rows that are no multiple of what the largest weight would give.
TEST_F(CudaFp8Test, ScalesThatAreGivenAreKept) {
  constexpr int64_t kRows = 48;
  constexpr int64_t kWidth = 64;
  const std::vector<float> scales(static_cast<size_t>(kRows), 0.0123F);
  HostTensor weights(DType::kF32, {kRows, kWidth});
  weights.Randomise(random, 40);
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < kWidth; ++j) weights.Set(i, j, ToE4M3(weights.At(i, j)) * scales[static_cast<size_t>(i)]);
  }
  LinearPart part{{weights.view()}, {}};
  part.scales = {scales};
  const auto fast = gpu->Prepare({part}, DType::kBF16, WeightFormat::kFp8);
  for (int64_t j = 0; j < kWidth; ++j) {
    HostTensor x(DType::kBF16, {1, kWidth});
    for (int64_t k = 0; k < kWidth; ++k) x.Set(0, k, k == j ? 1.0F : 0.0F);
    HostTensor column(DType::kF32, {1, kRows});
    Mirror gpu_x = Put(x);
    Mirror gpu_column = Put(column);
    gpu->Matmul(gpu_x.view(), *fast, gpu_column.view(), *gpu_stream);
    gpu_column.Fetch();
    for (int64_t i = 0; i < kRows; ++i) ASSERT_EQ(column.At(0, i), weights.At(i, j)) << i << ", " << j;
  }
}

TEST_F(CudaFp8Test, WhatIsNotFinite) {
  HostTensor weights(DType::kBF16, {32, 64});
  weights.Randomise(random);
  LinearPart part{{weights.view()}, {}};
  part.names = {"some.weight"};
  const auto fast = gpu->Prepare({part}, DType::kBF16, WeightFormat::kFp8);
  HostTensor x(DType::kBF16, {20, 64});
  x.Randomise(random);
  x.Set(3, 7, std::numeric_limits<float>::infinity());
  for (int64_t j = 0; j < x.columns(); ++j) x.Set(5, j, 0);
  HostTensor y(DType::kBF16, {20, 32});
  Mirror gpu_x = Put(x);
  Mirror gpu_y = Put(y);
  gpu->Matmul(gpu_x.view(), *fast, gpu_y.view(), *gpu_stream);
  gpu_y.Fetch();
  for (int64_t j = 0; j < y.columns(); ++j) {
    EXPECT_TRUE(std::isnan(y.At(3, j)));
    EXPECT_EQ(y.At(5, j), 0);
    EXPECT_FALSE(std::isnan(y.At(4, j)));
  }
  weights.Set(9, 2, std::numeric_limits<float>::quiet_NaN());
  try {
    (void)gpu->Prepare({part}, DType::kBF16, WeightFormat::kFp8);
    ADD_FAILURE() << "took a weight that is not a number";
  } catch (const ConfigError& refusal) {
    EXPECT_NE(std::string(refusal.what()).find("'some.weight': row 9"), std::string::npos) << refusal.what();
  }
}

TEST_F(CudaFp8Test, FormatsOfCpusAreRefused) {
  HostTensor weights(DType::kBF16, {32, 64});
  weights.Randomise(random);
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    EXPECT_THROW((void)gpu->Prepare({{{weights.view()}, {}}}, DType::kBF16, format), ConfigError);
  }
}

}  // namespace
}  // namespace runahead::testing
