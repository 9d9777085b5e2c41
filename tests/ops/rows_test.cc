// Embedding, normalisation, rotation, cache writes and activations against the oracle.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "ops_testing.h"

namespace runahead::testing {
namespace {

constexpr int64_t kRowCounts[] = {1, 17, 130};
constexpr int64_t kFeatures[] = {5, 64, 1000, 2051};

Norm MakeNorm(NormKind kind, HostTensor& weight, HostTensor* bias) {
  Norm norm;
  norm.kind = kind;
  norm.epsilon = 1e-5f;
  norm.weight.view = weight.view();
  if (bias != nullptr) norm.bias.view = bias->view();
  return norm;
}

TEST_F(OpsTest, EmbedScalesRowsOfAnyTable) {
  for (const DType table_type : kAllDTypes) {
    for (const DType dtype : kAllDTypes) {
      HostTensor table(table_type, {50, 77});
      table.Randomise(random);
      const std::vector<int32_t> tokens = {3, 49, 0, 3};
      HostTensor expected(dtype, {4, 77});
      HostTensor actual(dtype, {4, 77}, 3);
      oracle->Embed(tokens, table.view(), 1.7f, expected.view(), *stream);
      two->Embed(tokens, table.view(), 1.7f, actual.view(), *stream);
      ExpectNear(
          actual, expected,
          [&](int64_t i, int64_t j) { return 2 * UnitRoundoff(dtype) * std::abs(expected.At(i, j)); }, "embed");
    }
  }
}

TEST_F(OpsTest, NormalizeMatchesOracle) {
  for (const DType dtype : kAllDTypes) {
    for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
      for (const int64_t rows : kRowCounts) {
        for (const int64_t features : kFeatures) {
          for (const bool biased : {false, true}) {
            HostTensor x(dtype, {rows, features}, 5);
            HostTensor weight(DType::kF32, {features});
            HostTensor bias(DType::kF32, {features});
            x.Randomise(random, 2, 3);
            weight.Randomise(random);
            bias.Randomise(random);
            const Norm norm = MakeNorm(kind, weight, biased ? &bias : nullptr);
            HostTensor expected(dtype, {rows, features});
            HostTensor actual(dtype, {rows, features}, 7);
            oracle->Normalize(x.view(), norm, expected.view(), *stream);
            two->Normalize(x.view(), norm, actual.view(), *stream);
            // The statistics are sums over the features; the mean (3) cancels and leaves its own rounding.
            ExpectNear(
                actual, expected,
                [&](int64_t i, int64_t j) {
                  const double scaled = std::abs(double{weight.At(j, 0)}) * 4 + std::abs(double{bias.At(j, 0)});
                  return 2 * UnitRoundoff(dtype) * std::abs(expected.At(i, j)) +
                         SumTolerance(DType::kF32, features, scaled);
                },
                fmt::format("norm {} {} {}x{}", Name(dtype), static_cast<int>(kind), rows, features));
          }
        }
      }
    }
  }
}

TEST_F(OpsTest, AddNormalizeUpdatesTheResidual) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t features : kFeatures) {
      HostTensor x(dtype, {17, features}, 1);
      HostTensor delta(dtype, {17, features}, 2);
      HostTensor weight(DType::kF32, {features});
      x.Randomise(random);
      delta.Randomise(random);
      weight.Randomise(random);
      HostTensor x_expected = x;
      const Norm norm = MakeNorm(NormKind::kRms, weight, nullptr);
      HostTensor expected(dtype, {17, features});
      HostTensor actual(dtype, {17, features}, 4);
      oracle->AddNormalize(x_expected.view(), delta.view(), norm, expected.view(), *stream);
      two->AddNormalize(x.view(), delta.view(), norm, actual.view(), *stream);
      ExpectNear(
          x, x_expected, [](int64_t, int64_t) { return 0.0; }, "residual");
      ExpectNear(
          actual, expected,
          [&](int64_t i, int64_t j) {
            return 2 * UnitRoundoff(dtype) * std::abs(expected.At(i, j)) +
                   SumTolerance(DType::kF32, features, std::abs(double{expected.At(i, j)}));
          },
          "normalised sum");
    }
  }
}

TEST_F(OpsTest, NormalizeInPlaceAndResultsIndependentOfThreadsAndRows) {
  HostTensor x(DType::kBF16, {40, 300});
  HostTensor weight(DType::kF32, {300});
  x.Randomise(random);
  weight.Randomise(random);
  const Norm norm = MakeNorm(NormKind::kRms, weight, nullptr);
  HostTensor apart(DType::kBF16, {40, 300});
  two->Normalize(x.view(), norm, apart.view(), *stream);
  for (int64_t i = 0; i < 40; i += 8) {
    one->Normalize(x.view().Rows(i, i + 8), norm, x.view().Rows(i, i + 8), *stream);
  }
  ExpectNear(
      x, apart, [](int64_t, int64_t) { return 0.0; }, "in place");
}

struct Angles {
  Angles(int64_t positions, int64_t rotary_dim)
      : cosine(DType::kF32, {positions, rotary_dim / 2}), sine(DType::kF32, {positions, rotary_dim / 2}) {
    for (int64_t i = 0; i < positions; ++i) {
      for (int64_t j = 0; j < rotary_dim / 2; ++j) {
        const double angle = static_cast<double>(i) *
                             std::pow(10000.0, -2.0 * static_cast<double>(j) / static_cast<double>(rotary_dim));
        cosine.Set(i, j, static_cast<float>(std::cos(angle)));
        sine.Set(i, j, static_cast<float>(std::sin(angle)));
      }
    }
    table.cos.view = cosine.view();
    table.sin.view = sine.view();
  }
  HostTensor cosine;
  HostTensor sine;
  RopeTable table;
};

TEST_F(OpsTest, RotateAndAppendMatchOracle) {
  for (const DType dtype : kAllDTypes) {
    for (const auto& [head_dim, rotary_dim] : {std::pair<int64_t, int64_t>{64, 64}, {80, 32}, {10, 6}, {128, 128}}) {
      Angles angles(200, rotary_dim);
      const int64_t rows = 33;
      const int64_t position = 150;
      HostTensor q(dtype, {rows, 5, head_dim}, 9);
      q.Randomise(random);
      HostTensor expected = q;
      // A difference of two rounded products.
      const double products = SumTolerance(DType::kF32, 2, q.Largest());
      const auto tolerance = [&](int64_t i, int64_t j) {
        return 2 * UnitRoundoff(dtype) * std::abs(expected.At(i, j)) + products;
      };
      oracle->Rotate(expected.view(), angles.table, position, *stream);
      two->Rotate(q.view(), angles.table, position, *stream);
      ExpectNear(q, expected, tolerance, fmt::format("rotate {} {}", Name(dtype), head_dim));

      HostTensor k(dtype, {rows, 3, head_dim}, 4);
      HostTensor v(dtype, {rows, 3, head_dim}, 2);
      k.Randomise(random);
      v.Randomise(random);
      const double key_products = SumTolerance(DType::kF32, 2, k.Largest());
      const KvShape shape{2, 3, head_dim, dtype};
      KvCache cache(*device, shape, 190);
      KvCache oracle_cache(*device, shape, 190);
      two->AppendKv(k.view(), v.view(), angles.table, cache.Span(1, position, position + rows), *stream);
      oracle->AppendKv(k.view(), v.view(), angles.table, oracle_cache.Span(1, position, position + rows), *stream);
      for (int64_t i = 0; i < rows; ++i) {
        const auto at = [&](KvCache& from, bool key, int64_t j) {
          const KvSpan span = from.Span(1, position + i, position + i + 1);
          return Dispatch(
              dtype, [&](auto zero) { return static_cast<float>((key ? span.k : span.v).As<decltype(zero)>()[j]); });
        };
        for (int64_t j = 0; j < 3 * head_dim; ++j) {
          ASSERT_NEAR(at(cache, true, j), at(oracle_cache, true, j),
                      2 * UnitRoundoff(dtype) * std::abs(at(oracle_cache, true, j)) + key_products);
          ASSERT_EQ(at(cache, false, j), v.At(i, j));
        }
      }
    }
  }
}

TEST_F(OpsTest, GatedActivationsMatchOracle) {
  for (const DType dtype : kAllDTypes) {
    for (const Activation activation : {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh}) {
      for (const int64_t features : kFeatures) {
        HostTensor gate_up(dtype, {17, 2 * features}, 6);
        gate_up.Randomise(random, 4);
        HostTensor expected(dtype, {17, features});
        HostTensor actual(dtype, {17, features}, 5);
        oracle->GatedActivation(activation, gate_up.view(), expected.view(), *stream);
        two->GatedActivation(activation, gate_up.view(), actual.view(), *stream);
        // An exponential's argument of size a, rounded, is a relative error a u of the result: |gate| u, and for the
        // Gaussian's gate^2 u; the polynomials add 2e-7.
        ExpectNear(
            actual, expected,
            [&](int64_t i, int64_t j) {
              const double gate = std::abs(double{gate_up.At(i, j)});
              const double relative = 2e-7 + UnitRoundoff(DType::kF32) * (4 + gate + 2 * gate * gate);
              const double value = std::abs(double{expected.At(i, j)});
              // The exponential becomes 0 or infinity before it leaves the normal numbers; f16 has subnormal results.
              const double flushed = 0x1p-125 * gate * std::abs(double{gate_up.At(i, features + j)});
              const double subnormal = dtype == DType::kF16 ? 0x1p-24 : 0x1p-126;
              return value * (2 * UnitRoundoff(dtype) + relative * (1 + gate)) + flushed + subnormal;
            },
            fmt::format("activation {} {}", Name(dtype), static_cast<int>(activation)));
      }
    }
  }
}

}  // namespace
}  // namespace runahead::testing
