// Attention against the oracle: groupings, head sizes, chunks, windows, soft caps and the dense baseline.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "ops_testing.h"

namespace runahead::testing {
namespace {

struct Case {
  int64_t queries;
  int64_t keys;
  int64_t q_heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t window = 0;
  float softcap = 0;
  int64_t latent = 0;  // features of values, which scores sum too; 0: values as wide as keys, which scores do not sum
};

class AttentionTest : public OpsTest {
 protected:
  struct Inputs {
    HostTensor q;
    HostTensor rotated;
    HostTensor k;
    HostTensor v;
    KvSpan span;
  };

  Inputs Make(const Case& c, DType dtype, int64_t gap) {
    const int64_t values = c.latent > 0 ? c.latent : c.head_dim;
    Inputs in{HostTensor(dtype, {c.queries, c.q_heads, values}, gap),
              HostTensor(dtype, {c.queries, c.q_heads, c.head_dim}, gap),
              HostTensor(dtype, {c.keys, c.kv_heads, c.head_dim}), HostTensor(dtype, {c.keys, c.kv_heads, values}),
              KvSpan()};
    in.q.Randomise(random);
    in.rotated.Randomise(random);
    in.k.Randomise(random);
    in.v.Randomise(random);
    in.span = {0, 0, c.keys, in.k.view(), in.v.view()};
    return in;
  }

  static AttentionOptions Options(const Case& c, CausalWork causal = CausalWork::kSkip) {
    return {2.0f / std::sqrt(static_cast<float>(c.head_dim + c.latent)), c.window, c.softcap, {}, causal, {}};
  }

  void Compare(Ops& ops, const Case& c, DType dtype, int64_t gap = 0) {
    Inputs in = Make(c, dtype, gap);
    const Shape shape{c.queries, c.q_heads, c.latent > 0 ? c.latent : c.head_dim};
    HostTensor expected(dtype, shape);
    AttentionOptions options = Options(c);
    if (c.latent > 0) options.rotated = in.rotated.view();
    oracle->Attention(in.q.view(), c.keys - c.queries, in.span, options, expected.view(), *stream);
    const std::string what =
        fmt::format("attention {} {}/{} heads {}/{} x {}, window {}, softcap {}, latent {}", Name(dtype), c.queries,
                    c.keys, c.q_heads, c.kv_heads, c.head_dim, c.window, c.softcap, c.latent);
    // A score of unit normal operands times 2 / sqrt(head_dim) has norm 2; its rounding is a relative error of the
    // weights, as is the rounding of the weights themselves. A weighted mean of unit normal values is at most the
    // largest value.
    const double score = SumTolerance(DType::kF32, c.head_dim + c.latent, 4) * (1 + c.softcap);
    const double weights = (4 * UnitRoundoff(dtype) + score) * in.v.Largest();
    for (const CausalWork causal : {CausalWork::kSkip, CausalWork::kDense}) {
      HostTensor actual(dtype, shape, gap);
      options.causal = causal;
      ops.Attention(in.q.view(), c.keys - c.queries, in.span, options, actual.view(), *stream);
      ExpectNear(
          actual, expected,
          [&](int64_t i, int64_t j) { return 2 * UnitRoundoff(dtype) * std::abs(expected.At(i, j)) + weights; },
          what + (causal == CausalWork::kDense ? " dense" : ""));
    }
  }
};

TEST_F(AttentionTest, HeadSizesAndDTypes) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t head_dim : {8, 20, 32, 64, 72, 80, 96, 128, 256}) {
      Compare(*two, {70, 70, 4, 2, head_dim}, dtype);
      Compare(*one, {3, 131, 2, 2, head_dim}, dtype, 3);
    }
  }
}

TEST_F(AttentionTest, LatentVectors) {
  for (const DType dtype : kAllDTypes) {
    for (const auto& [turning, latent] :
         {std::pair<int64_t, int64_t>{64, 512}, {2, 3}, {6, 20}, {16, 48}, {40, 33}}) {
      Compare(*two, {70, 70, 5, 1, turning, 0, 0, latent}, dtype);
      Compare(*two, {1, 300, 16, 1, turning, 0, 0, latent}, dtype, 8);
      Compare(*one, {3, 131, 2, 2, turning, 40, 0, latent}, dtype, 3);
    }
  }
}

TEST_F(AttentionTest, Groupings) {
  for (const DType dtype : kAllDTypes) {
    for (const auto& [q_heads, kv_heads] : {std::pair<int64_t, int64_t>{1, 1}, {8, 8}, {8, 2}, {71, 1}, {12, 4}}) {
      Compare(*two, {17, 90, q_heads, kv_heads, 64}, dtype);
      Compare(*two, {1, 77, q_heads, kv_heads, 64}, dtype, 8);
    }
  }
}

TEST_F(AttentionTest, ChunksOfAPrompt) {
  for (const DType dtype : kAllDTypes) {
    for (const auto& [queries, keys] : {std::pair<int64_t, int64_t>{1, 1},
                                        {1, 2},
                                        {1, 64},
                                        {1, 65},
                                        {1, 400},
                                        {2, 3},
                                        {63, 127},
                                        {64, 128},
                                        {65, 129},
                                        {200, 333}}) {
      Compare(*two, {queries, keys, 6, 2, 32}, dtype);
    }
  }
}

TEST_F(AttentionTest, WindowAndSoftcap) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t window : {1, 5, 64, 100, 1000}) {
      Compare(*two, {150, 280, 4, 2, 64, window}, dtype);
      Compare(*two, {1, 280, 4, 2, 64, window}, dtype);
    }
    Compare(*one, {50, 100, 4, 2, 64, 0, 5.0f}, dtype);
    Compare(*one, {2, 300, 4, 2, 80, 30, 5.0f}, dtype);
  }
}

TEST_F(AttentionTest, LargeScoresDoNotOverflow) {
  for (const DType dtype : kAllDTypes) {
    const Case c{5, 200, 2, 1, 64};
    Inputs in = Make(c, dtype, 0);
    in.q.Randomise(random, 40);
    HostTensor expected(dtype, {5, 2, 64});
    HostTensor actual(dtype, {5, 2, 64});
    AttentionOptions options = Options(c);
    options.scale = 1;
    oracle->Attention(in.q.view(), c.keys - c.queries, in.span, options, expected.view(), *stream);
    two->Attention(in.q.view(), c.keys - c.queries, in.span, options, actual.view(), *stream);
    // Scores of norm 320 put a rounding of 320 u sqrt(64) into the exponent.
    const double allowed = (SumTolerance(DType::kF32, 64, 2 * 320) + 4 * UnitRoundoff(dtype)) * in.v.Largest();
    ExpectNear(
        actual, expected, [&](int64_t, int64_t) { return allowed; }, "large scores");
  }
}

/// A call as a whole, and its rows computed in other company.
class SameBitsTest : public AttentionTest {
 protected:
  /// Rows of `c` by `ops`, in calls of `step` positions, from a cache whose rows behind each call are NaN.
  HostTensor InSteps(Ops& ops, const Case& c, const Inputs& in, AttentionOptions options, int64_t step) {
    const int64_t before = c.keys - c.queries;
    HostTensor k(in.k);
    HostTensor v(in.v);
    Forget(k, before);
    Forget(v, before);
    HostTensor q(in.q);
    HostTensor out(in.q.dtype(), {c.queries, c.q_heads, c.head_dim});
    for (int64_t begin = 0; begin < c.queries; begin += step) {
      const int64_t end = std::min(begin + step, c.queries);
      for (int64_t row = before + begin; row < before + end; ++row) {
        for (int64_t i = 0; i < k.columns(); ++i) {
          k.Set(row, i, in.k.At(row, i));
          v.Set(row, i, in.v.At(row, i));
        }
      }
      const int64_t keys = options.causal == CausalWork::kDense ? before + end : c.keys;
      ops.Attention(q.view().Rows(begin, end), before + begin,
                    KvSpan{0, 0, keys, k.view().Rows(0, keys), v.view().Rows(0, keys)}, options,
                    out.view().Rows(begin, end), *stream);
    }
    return out;
  }

  void CheckCase(const Case& c, DType dtype, TensorView key_bias = {}) {
    Inputs in = Make(c, dtype, 0);
    AttentionOptions options = Options(c);
    options.key_bias = key_bias;
    HostTensor whole(dtype, {c.queries, c.q_heads, c.head_dim});
    one->Attention(in.q.view(), c.keys - c.queries, in.span, options, whole.view(), *stream);
    const std::unique_ptr<Ops> three = MakeCpuOps(*device, 3);
    AttentionOptions dense = options;
    dense.causal = CausalWork::kDense;
    const auto compare = [&](HostTensor actual, const char* what) {
      EXPECT_TRUE(actual.memory() == whole.memory())
          << what << ", " << Name(dtype) << " " << c.queries << "/" << c.keys << " heads " << c.q_heads << "/"
          << c.kv_heads << " x " << c.head_dim << ", window " << c.window << ", softcap " << c.softcap;
    };
    compare(InSteps(*three, c, in, options, c.queries), "three threads");
    compare(InSteps(*two, c, in, dense, c.queries), "masked away");
    compare(InSteps(*two, c, in, options, 1), "one by one");
    compare(InSteps(*one, c, in, dense, 61), "61 at a time, masked away");
    for (const int64_t step : {2, 16, 33, 97, 130}) compare(InSteps(*two, c, in, options, step), "in steps");
  }

 private:
  static void Forget(HostTensor& rows, int64_t from) {
    for (int64_t row = from; row < rows.rows(); ++row) {
      for (int64_t i = 0; i < rows.columns(); ++i) rows.Set(row, i, std::numeric_limits<float>::quiet_NaN());
    }
  }
};

TEST_F(SameBitsTest, WhateverTheHeads) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t head_dim : {20, 32, 80, 96}) CheckCase({137, 300, 4, 2, head_dim}, dtype);
    for (const auto& [q_heads, kv_heads] : {std::pair<int64_t, int64_t>{2, 2}, {3, 1}, {16, 2}, {33, 1}, {71, 1}}) {
      CheckCase({35, 140, q_heads, kv_heads, 32}, dtype);
    }
  }
}

TEST_F(SameBitsTest, OverManyBlocksAndSegments) {
  for (const DType dtype : kAllDTypes) {
    CheckCase({70, 1100, 4, 2, 32}, dtype);
    CheckCase({530, 530, 2, 1, 16}, dtype);
    CheckCase({150, 1024, 1, 1, 64}, dtype);
  }
}

TEST_F(SameBitsTest, WithWindowsCapsAndBiases) {
  HostTensor bias(DType::kF32, {4, 703});
  bias.Randomise(random, 3);
  for (const DType dtype : kAllDTypes) {
    for (const int64_t window : {1, 30, 128, 500}) CheckCase({150, 700, 4, 2, 32, window}, dtype);
    CheckCase({140, 700, 4, 2, 32, 100, 5.0f}, dtype);
    CheckCase({140, 700, 4, 2, 32}, dtype, bias.view());
    CheckCase({140, 700, 4, 4, 20, 40}, dtype, bias.view());
  }
}

// A weight of 0 does not hide an infinity: 0 * inf is not a number.
TEST_F(SameBitsTest, ValuesThatAreNotNumbersReachOnlyRowsThatSeeThem) {
  for (const DType dtype : kAllDTypes) {
    const Case c{260, 300, 4, 2, 32, 150};
    Inputs in = Make(c, dtype, 0);
    HostTensor expected(dtype, {260, 4, 32});
    two->Attention(in.q.view(), 40, in.span, Options(c), expected.view(), *stream);
    constexpr int64_t kLost = 120;
    in.v.Set(kLost, 3, std::numeric_limits<float>::infinity());
    in.v.Set(kLost, 40, std::numeric_limits<float>::quiet_NaN());
    for (const int64_t step : {1, 50, 260}) {
      const HostTensor actual = InSteps(*two, c, in, Options(c), step);
      for (int64_t row = 0; row < c.queries; ++row) {
        const bool lost = row + 40 >= kLost && row + 40 < kLost + c.window;
        for (int64_t i = 0; i < 4 * 32; ++i) {
          const bool here = lost && (i < 64 ? i % 32 == 3 : i % 32 == 8);
          if (here) {
            ASSERT_FALSE(std::isfinite(actual.At(row, i))) << Name(dtype) << " row " << row << ", " << i;
          } else {
            ASSERT_EQ(actual.At(row, i), expected.At(row, i)) << Name(dtype) << " row " << row << ", " << i;
          }
        }
      }
    }
  }
}

TEST_F(AttentionTest, RowsBehindTheQueriesAreNotRead) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t queries : {1, 40}) {
      const Case c{queries, 300, 4, 2, 64};
      Inputs in = Make(c, dtype, 0);
      const int64_t position = 70;
      HostTensor expected(dtype, {queries, 4, 64});
      HostTensor dense(dtype, {queries, 4, 64});
      HostTensor actual(dtype, {queries, 4, 64});
      oracle->Attention(in.q.view(), position, in.span, Options(c), expected.view(), *stream);
      two->Attention(in.q.view(), position, in.span, Options(c, CausalWork::kDense), dense.view(), *stream);
      for (int64_t i = position + queries; i < 300; ++i) {
        for (int64_t j = 0; j < 2 * 64; ++j) {
          in.k.Set(i, j, std::numeric_limits<float>::quiet_NaN());
          in.v.Set(i, j, std::numeric_limits<float>::quiet_NaN());
        }
      }
      two->Attention(in.q.view(), position, in.span, Options(c), actual.view(), *stream);
      const double allowed = (6 * UnitRoundoff(dtype) + SumTolerance(DType::kF32, 64, 4)) * expected.Largest();
      ExpectNear(
          actual, expected, [&](int64_t, int64_t) { return allowed; }, "behind");
      ExpectNear(
          dense, expected, [&](int64_t, int64_t) { return allowed; }, "behind, dense");
    }
  }
}

TEST_F(AttentionTest, SinksMatchOracleAndTheBitsOfAnyCompany) {
  for (const DType dtype : kAllDTypes) {
    for (const Case& c : {Case{1, 300, 6, 6, 64}, Case{150, 280, 6, 2, 32}, Case{40, 40, 5, 1, 20, 9}}) {
      Inputs in = Make(c, dtype, 0);
      HostTensor sinks(DType::kF32, {c.q_heads});
      sinks.Randomise(random, 3);
      sinks.Set(0, 0, 200);  // takes all of the weight
      const Shape shape{c.queries, c.q_heads, c.head_dim};
      HostTensor expected(dtype, shape);
      HostTensor actual(dtype, shape);
      HostTensor last(dtype, {1, c.q_heads, c.head_dim});
      AttentionOptions options = Options(c);
      options.sinks = TensorView(sinks.view().data(), DType::kF32, {c.q_heads});
      oracle->Attention(in.q.view(), c.keys - c.queries, in.span, options, expected.view(), *stream);
      two->Attention(in.q.view(), c.keys - c.queries, in.span, options, actual.view(), *stream);
      const double score = SumTolerance(DType::kF32, c.head_dim, 4);
      const double allowed = (6 * UnitRoundoff(dtype) + score) * in.v.Largest();
      ExpectNear(
          actual, expected, [&](int64_t, int64_t) { return allowed; },
          fmt::format("sinks {} {} queries", Name(dtype), c.queries));
      one->Attention(in.q.view().Rows(c.queries - 1, c.queries), c.keys - 1, in.span, options, last.view(), *stream);
      const size_t row = last.memory().size();
      EXPECT_TRUE(std::equal(last.memory().begin(), last.memory().end(), actual.memory().end() - row)) << Name(dtype);
    }
  }
}

TEST_F(AttentionTest, BiasesOfKeysMatchOracle) {
  for (const DType dtype : kAllDTypes) {
    for (const Case& c : {Case{1, 300, 6, 6, 64}, Case{150, 280, 6, 2, 32}, Case{40, 40, 5, 1, 20, 9}}) {
      Inputs in = Make(c, dtype, 0);
      HostTensor bias(DType::kF32, {c.q_heads, c.keys + 3}, 5);  // wider than the keys
      bias.Randomise(random, 3);
      const Shape shape{c.queries, c.q_heads, c.head_dim};
      HostTensor expected(dtype, shape);
      AttentionOptions options = Options(c);
      options.key_bias = bias.view();
      oracle->Attention(in.q.view(), c.keys - c.queries, in.span, options, expected.view(), *stream);
      for (const CausalWork causal : {CausalWork::kSkip, CausalWork::kDense}) {
        options.causal = causal;
        HostTensor actual(dtype, shape);
        two->Attention(in.q.view(), c.keys - c.queries, in.span, options, actual.view(), *stream);
        const double score = SumTolerance(DType::kF32, c.head_dim, 4 + bias.Largest());
        const double allowed = (6 * UnitRoundoff(dtype) + score) * in.v.Largest();
        ExpectNear(
            actual, expected, [&](int64_t, int64_t) { return allowed; },
            fmt::format("bias {} {} queries", Name(dtype), c.queries));
      }
    }
  }
}

TEST_F(AttentionTest, RowsBeforeTheWindowAreNotRead) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t queries : {1, 8, 40, 170}) {
      const Case c{queries, 500, 4, 2, 64, 77};
      Inputs in = Make(c, dtype, 0);
      HostTensor expected(dtype, {queries, 4, 64});
      HostTensor actual(dtype, {queries, 4, 64});
      two->Attention(in.q.view(), c.keys - c.queries, in.span, Options(c), expected.view(), *stream);
      for (int64_t i = 0; i < c.keys - queries - c.window + 1; ++i) {
        for (int64_t j = 0; j < 2 * 64; ++j) {
          in.k.Set(i, j, std::numeric_limits<float>::quiet_NaN());
          in.v.Set(i, j, std::numeric_limits<float>::quiet_NaN());
        }
      }
      two->Attention(in.q.view(), c.keys - c.queries, in.span, Options(c), actual.view(), *stream);
      ExpectNear(
          actual, expected, [](int64_t, int64_t) { return 0.0; }, "before the window");
    }
  }
}

}  // namespace
}  // namespace runahead::testing
