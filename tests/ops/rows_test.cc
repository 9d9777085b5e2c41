// Embedding, normalisation, rotation, cache writes, activations and mixtures against the oracle.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "ops_testing.h"

namespace runahead::testing {
namespace {

constexpr int64_t kRowCounts[] = {1, 17, 130};
constexpr int64_t kFeatures[] = {5, 64, 1000, 2051};

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
            const Norm norm = MakeNorm(kind, weight.view(), biased ? bias.view() : TensorView());
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

TEST_F(OpsTest, NormalizeInPlaceAndResultsIndependentOfThreadsAndRows) {
  HostTensor x(DType::kBF16, {40, 300});
  HostTensor weight(DType::kF32, {300});
  x.Randomise(random);
  weight.Randomise(random);
  const Norm norm = MakeNorm(NormKind::kRms, weight.view(), {});
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

TEST_F(OpsTest, QueriesAndKeysMatchOracle) {
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
      const HeadSteps steps{nullptr, &angles.table};
      oracle->PrepareQueries(expected.view(), steps, position, *stream);
      two->PrepareQueries(q.view(), steps, position, *stream);
      ExpectNear(q, expected, tolerance, fmt::format("rotate {} {}", Name(dtype), head_dim));

      HostTensor k(dtype, {rows, 3, head_dim}, 4);
      HostTensor v(dtype, {rows, 3, head_dim}, 2);
      k.Randomise(random);
      v.Randomise(random);
      const double key_products = SumTolerance(DType::kF32, 2, k.Largest());
      const KvShape shape{2, 3, head_dim, dtype};
      KvCache cache(*device, shape, 190);
      KvCache oracle_cache(*device, shape, 190);
      two->AppendKv(k.view(), v.view(), steps, cache.Span(1, position, position + rows), *stream);
      oracle->AppendKv(k.view(), v.view(), steps, oracle_cache.Span(1, position, position + rows), *stream);
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

class HeadsTest : public OpsTest {
 protected:
  static constexpr int64_t kHeads = 3;

  void CheckHeadSteps(DType dtype, int64_t head_dim, const RopeTable& rope_table, const Norm& norm) {
    constexpr int64_t kRows = 21;
    for (const RopeTable* rope : {static_cast<const RopeTable*>(nullptr), &rope_table}) {
      const HeadSteps steps{&norm, rope};
      HostTensor q(dtype, {kRows, kHeads, head_dim}, 5);
      q.Randomise(random, 3);
      HostTensor expected = q;
      HostTensor k = q;
      oracle->PrepareQueries(expected.view(), steps, 30, *stream);
      two->PrepareQueries(q.view(), steps, 30, *stream);
      // A norm's rounding, which may fall to the other side, then two products of what it left.
      const double allowed =
          (4 * UnitRoundoff(dtype) + SumTolerance(DType::kF32, head_dim, 1)) * 2 * expected.Largest();
      ExpectNear(
          q, expected, [&](int64_t, int64_t) { return allowed; }, fmt::format("{} {}", Name(dtype), head_dim));

      KvCache cache(*device, {1, kHeads, head_dim, dtype}, 60);
      const KvSpan span = cache.Span(0, 30, 30 + kRows);
      two->AppendKv(k.view(), k.view(), steps, span, *stream);
      for (int64_t i = 0; i < kRows; ++i) {
        for (int64_t j = 0; j < kHeads * head_dim; ++j) {
          const float key = Dispatch(dtype, [&](auto zero) {
            return static_cast<float>(span.k.As<decltype(zero)>()[i * kHeads * head_dim + j]);
          });
          ASSERT_EQ(key, q.At(i, j)) << "queries and keys take the same steps";
        }
      }
    }
  }
};

TEST_F(HeadsTest, HeadsAreNormalisedBeforeTheyTurn) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t head_dim : {6, 64, 80}) {
      Angles angles(60, head_dim);
      for (const int64_t weights : {head_dim, kHeads * head_dim}) {
        HostTensor weight(DType::kF32, {weights});
        weight.Randomise(random);
        CheckHeadSteps(dtype, head_dim, angles.table, MakeNorm(NormKind::kRms, weight.view(), {}));
        CheckHeadSteps(dtype, head_dim, angles.table, MakeNorm(NormKind::kLayer, weight.view(), weight.view()));
      }
    }
  }
}

TEST_F(OpsTest, WithoutStepsHeadsStayAsTheyAre) {
  HostTensor q(DType::kBF16, {9, 2, 10}, 3);
  q.Randomise(random);
  const HostTensor before = q;
  two->PrepareQueries(q.view(), {}, 4, *stream);
  ExpectNear(
      q, before, [](int64_t, int64_t) { return 0.0; }, "queries");
  KvCache cache(*device, {1, 2, 10, DType::kBF16}, 13);
  const KvSpan span = cache.Span(0, 4, 13);
  two->AppendKv(q.view(), q.view(), {}, span, *stream);
  for (int64_t i = 0; i < 9; ++i) {
    for (int64_t j = 0; j < 20; ++j) {
      ASSERT_EQ(static_cast<float>(span.k.As<BFloat16>()[i * 20 + j]), before.At(i, j));
      ASSERT_EQ(static_cast<float>(span.v.As<BFloat16>()[i * 20 + j]), before.At(i, j));
    }
  }
}

TEST_F(OpsTest, AddSumsByRows) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t features : kFeatures) {
      HostTensor x(dtype, {17, features}, 1);
      HostTensor delta(dtype, {17, features}, 2);
      x.Randomise(random);
      delta.Randomise(random);
      HostTensor expected = x;
      oracle->Add(expected.view(), delta.view(), *stream);
      two->Add(x.view(), delta.view(), *stream);
      ExpectNear(
          x, expected, [](int64_t, int64_t) { return 0.0; }, "sum");
    }
  }
}

/// The error of activation(x), computed in f32 and rounded to `dtype`. An exponential's argument of size a, rounded,
/// is a relative error a u of the result: |x| u, and for the Gaussian's x^2 u; the polynomials add 2e-7. The
/// exponential becomes 0 or infinity before it leaves the normal numbers.
double ActivationTolerance(DType dtype, double x, double value) {
  const double size = std::abs(x);
  const double relative = 2e-7 + UnitRoundoff(DType::kF32) * (4 + size + 2 * size * size);
  const double subnormal = dtype == DType::kF16 ? 0x1p-24 : 0x1p-126;
  return std::abs(value) * (2 * UnitRoundoff(dtype) + relative * (1 + size)) + 0x1p-125 * size + subnormal;
}

TEST_F(OpsTest, ActivationsMatchOracleAlsoInPlace) {
  for (const DType dtype : kAllDTypes) {
    for (const Activation activation : kAllActivations) {
      for (const int64_t features : kFeatures) {
        HostTensor x(dtype, {17, features}, 6);
        x.Randomise(random, 4);
        const HostTensor before = x;
        HostTensor expected(dtype, {17, features});
        HostTensor actual(dtype, {17, features}, 5);
        oracle->Activate(activation, x.view(), expected.view(), *stream);
        two->Activate(activation, x.view(), actual.view(), *stream);
        two->Activate(activation, x.view(), x.view(), *stream);
        const auto tolerance = [&](int64_t i, int64_t j) {
          return ActivationTolerance(dtype, before.At(i, j), expected.At(i, j));
        };
        ExpectNear(actual, expected, tolerance, "apart");
        ExpectNear(x, expected, tolerance, "in place");
      }
    }
  }
}

TEST_F(OpsTest, SoftcapMatchesOracle) {
  for (const float cap : {0.5f, 30.0f}) {
    HostTensor x(DType::kF32, {3, 1003}, 2);
    x.Randomise(random, 2 * cap);
    HostTensor expected = x;
    oracle->Softcap(x.view(), cap, *stream);
    two->Softcap(expected.view(), cap, *stream);
    // tanh of a sum of exponentials: a few roundings of a number up to 1.
    ExpectNear(
        x, expected, [&](int64_t, int64_t) { return 16 * UnitRoundoff(DType::kF32) * cap; }, "softcap");
  }
}

TEST_F(OpsTest, GatedActivationsMatchOracle) {
  for (const DType dtype : kAllDTypes) {
    for (const Activation activation : kAllActivations) {
      for (const int64_t features : kFeatures) {
        HostTensor gate_up(dtype, {17, 2 * features}, 6);
        gate_up.Randomise(random, 4);
        HostTensor expected(dtype, {17, features});
        HostTensor actual(dtype, {17, features}, 5);
        oracle->GatedActivation(activation, gate_up.view(), expected.view(), *stream);
        two->GatedActivation(activation, gate_up.view(), actual.view(), *stream);
        ExpectNear(
            actual, expected,
            [&](int64_t i, int64_t j) {
              const double up = std::max(1.0, std::abs(double{gate_up.At(i, features + j)}));
              return up * ActivationTolerance(dtype, gate_up.At(i, j), expected.At(i, j) / up);
            },
            fmt::format("activation {} {}", Name(dtype), static_cast<int>(activation)));
      }
    }
  }
}

/// Random experts, and memory for `rows` rows to go through them.
struct RandomMixture {
  RandomMixture(Ops& ops, std::mt19937& random, DType dtype, int64_t rows, int64_t hidden, Mixture wanted,
                std::span<const int64_t> features)
      : experts(RandomExperts(ops, random, dtype, hidden, features)),
        mixture(wanted),
        gathered(dtype, {rows, hidden}),
        product(dtype, {rows, 2 * features.back()}),
        activated(dtype, {rows, features.back()}),
        results(dtype, {rows * wanted.active(), hidden}) {
    mixture.experts = experts;
  }
  void Add(Ops& ops, TensorView x, TensorView scores, TensorView sum, Stream& stream) {
    ops.AddMixture(x, scores, mixture, {gathered.view(), product.view(), activated.view(), results.view(), {}}, sum,
                   stream);
  }
  std::vector<Expert> experts;
  Mixture mixture;
  HostTensor gathered;
  HostTensor product;
  HostTensor activated;
  HostTensor results;
};

TEST_F(OpsTest, MixturesMatchOracleAndHaveTheSameBitsInAnyCompany) {
  constexpr int64_t kHidden = 50;
  constexpr int64_t kRows = 77;
  constexpr int64_t kFfn[] = {9, 9, 9, 33};  // the last is shared, or one more to choose from
  for (const DType dtype : kAllDTypes) {
    const Routing logistic{.logistic = true, .scale = 1.5f};
    const Routing grouped{.logistic = true, .groups = 2, .chosen_groups = 1, .group_best = 2, .scale = 1.5f};
    const Routing of_best{.groups = 4, .chosen_groups = 3};
    HostTensor biases(DType::kF32, {4});
    biases.Randomise(random);
    for (const auto& [chosen, shared, gates, routing] : {std::tuple{1, false, 0, Routing()},
                                                         {3, true, 1, Routing()},
                                                         {2, true, 0, Routing()},
                                                         {4, false, 0, Routing()},
                                                         {2, true, 0, logistic},
                                                         {2, false, 0, grouped},
                                                         {1, false, 0, of_best}}) {
      Mixture wanted;
      wanted.chosen = chosen;
      wanted.shared = shared;
      wanted.renormalise = chosen == 2;
      wanted.routing = routing;
      if (routing.chosen_groups == 3) wanted.clamped = {.slope = 1.702f, .limit = 0.8f};
      if (routing.logistic) {
        wanted.choice_bias = {biases.view().data(), DType::kF32, {wanted.shared ? 3 : 4}};
      }
      HostTensor x(dtype, {kRows, kHidden}, 3);
      HostTensor scores(DType::kF32, {kRows, 4 - (shared ? 1 : 0) + gates}, 1);
      HostTensor sum(dtype, {kRows, kHidden}, 4);
      x.Randomise(random);
      scores.Randomise(random, 2);
      sum.Randomise(random);
      for (int64_t i = 0; chosen == 1 && i < kRows; ++i) scores.Set(i, 1, -50);  // an expert without rows
      const auto seed = random();
      const auto run = [&](Ops& ops, int64_t step) {
        std::mt19937 same(seed);
        RandomMixture mixture(ops, same, dtype, kRows, kHidden, wanted, kFfn);
        HostTensor result = sum;
        for (int64_t row = 0; row < kRows; row += step) {
          const int64_t end = std::min(row + step, kRows);
          mixture.Add(ops, x.view().Rows(row, end), scores.view().Rows(row, end), result.view().Rows(row, end),
                      *stream);
        }
        return result;
      };
      const HostTensor expected = run(*oracle, kRows);
      HostTensor actual = run(*two, kRows);
      // Three roundings of numbers around 1 in each expert, whose weights sum to 1 or with a shared one to 2.
      const double tolerance = SumTolerance(dtype, kHidden, 2);
      ExpectNear(
          actual, expected, [&](int64_t, int64_t) { return tolerance; }, fmt::format("{} {}", Name(dtype), chosen));
      EXPECT_TRUE(actual.GapsUntouched());
      for (const int64_t step : {1, 7, 64}) {
        HostTensor pieces = run(*one, step);
        EXPECT_TRUE(pieces.memory() == actual.memory()) << Name(dtype) << ", " << step << " rows at a time";
      }
    }
  }
}

TEST_F(OpsTest, RowsHaveTheSameBitsInAnyCompany) {
  constexpr int64_t kRows = 301;
  constexpr int64_t kHeadDim = 26;
  constexpr int64_t kWidth = 3 * kHeadDim;
  Angles angles(kRows, kHeadDim - 2);
  HostTensor weight(DType::kF32, {kWidth});
  weight.Randomise(random);
  const Norm rms = MakeNorm(NormKind::kRms, weight.view(), {});
  const Norm layer = MakeNorm(NormKind::kLayer, weight.view(), weight.view());
  const Norm of_heads = MakeNorm(NormKind::kRms, weight.view().Rows(0, kHeadDim), {});
  const HeadSteps steps{&of_heads, &angles.table};
  for (const DType dtype : kAllDTypes) {
    HostTensor x(dtype, {kRows, kWidth});
    x.Randomise(random, 2, 1);
    // All operations one after the other, on rows [begin, end).
    const auto run = [&](Ops& ops, HostTensor& in, HostTensor& narrow, int64_t begin, int64_t end) {
      const TensorView rows = in.view().Rows(begin, end);
      ops.Normalize(rows, rms, rows, *stream);
      ops.PrepareQueries(rows.SplitRows(3, kHeadDim), steps, begin, *stream);
      ops.Normalize(rows, layer, rows, *stream);
      ops.Add(rows, rows, *stream);
      ops.Activate(Activation::kGelu, rows, rows, *stream);
      ops.Activate(Activation::kGeluTanh, rows, rows, *stream);
      ops.GatedActivation(Activation::kSilu, rows, narrow.view().Rows(begin, end), *stream);
      if (dtype == DType::kF32) ops.Softcap(narrow.view().Rows(begin, end), 3, *stream);
    };
    HostTensor whole = x;
    HostTensor whole_narrow(dtype, {kRows, kWidth / 2});
    const std::unique_ptr<Ops> four = MakeCpuOps(*device, 4);
    run(*four, whole, whole_narrow, 0, kRows);
    for (const int64_t step : {1, 7, 64}) {
      HostTensor pieces = x;
      HostTensor narrow(dtype, {kRows, kWidth / 2});
      for (int64_t row = 0; row < kRows; row += step) run(*one, pieces, narrow, row, std::min(row + step, kRows));
      EXPECT_TRUE(pieces.memory() == whole.memory()) << Name(dtype) << ", " << step << " rows at a time";
      EXPECT_TRUE(narrow.memory() == whole_narrow.memory()) << Name(dtype) << ", " << step << " rows at a time";
    }
  }
}

}  // namespace
}  // namespace runahead::testing
