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
};

class AttentionTest : public OpsTest {
 protected:
  struct Inputs {
    HostTensor q;
    HostTensor k;
    HostTensor v;
    KvSpan span;
  };

  Inputs Make(const Case& c, DType dtype, int64_t gap) {
    Inputs in{HostTensor(dtype, {c.queries, c.q_heads, c.head_dim}, gap),
              HostTensor(dtype, {c.keys, c.kv_heads, c.head_dim}),
              HostTensor(dtype, {c.keys, c.kv_heads, c.head_dim}), KvSpan()};
    in.q.Randomise(random);
    in.k.Randomise(random);
    in.v.Randomise(random);
    in.span = {0, 0, c.keys, in.k.view(), in.v.view()};
    return in;
  }

  static AttentionOptions Options(const Case& c, CausalWork causal = CausalWork::kSkip) {
    return {2.0f / std::sqrt(static_cast<float>(c.head_dim)), c.window, c.softcap, {}, causal};
  }

  void Compare(Ops& ops, const Case& c, DType dtype, int64_t gap = 0) {
    Inputs in = Make(c, dtype, gap);
    const Shape shape{c.queries, c.q_heads, c.head_dim};
    HostTensor expected(dtype, shape);
    oracle->Attention(in.q.view(), c.keys - c.queries, in.span, Options(c), expected.view(), *stream);
    const std::string what = fmt::format("attention {} {}/{} heads {}/{} x {}, window {}, softcap {}", Name(dtype),
                                         c.queries, c.keys, c.q_heads, c.kv_heads, c.head_dim, c.window, c.softcap);
    // A score of unit normal operands times 2 / sqrt(head_dim) has norm 2; its rounding is a relative error of the
    // weights, as is the rounding of the weights themselves. A weighted mean of unit normal values is at most the
    // largest value.
    const double score = SumTolerance(DType::kF32, c.head_dim, 4) * (1 + c.softcap);
    const double weights = (4 * UnitRoundoff(dtype) + score) * in.v.Largest();
    for (const CausalWork causal : {CausalWork::kSkip, CausalWork::kDense}) {
      HostTensor actual(dtype, shape, gap);
      ops.Attention(in.q.view(), c.keys - c.queries, in.span, Options(c, causal), actual.view(), *stream);
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

TEST_F(AttentionTest, RowsDoNotDependOnChunksThreadsOrTheMaskedWork) {
  for (const DType dtype : kAllDTypes) {
    const Case c{300, 300, 4, 2, 64};
    Inputs in = Make(c, dtype, 0);
    HostTensor whole(dtype, {300, 4, 64});
    HostTensor pieces(dtype, {300, 4, 64});
    HostTensor dense(dtype, {300, 4, 64});
    two->Attention(in.q.view(), c.keys - c.queries, in.span, Options(c), whole.view(), *stream);
    two->Attention(in.q.view(), c.keys - c.queries, in.span, Options(c, CausalWork::kDense), dense.view(), *stream);
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 97}, {97, 200}, {200, 300}}) {
      const KvSpan prefix{0, 0, end, in.k.view().Rows(0, end), in.v.view().Rows(0, end)};
      one->Attention(in.q.view().Rows(begin, end), begin, prefix, Options(c), pieces.view().Rows(begin, end),
                     *stream);
    }
    ExpectNear(
        pieces, whole, [](int64_t, int64_t) { return 0.0; }, "chunks");
    ExpectNear(
        dense, whole, [](int64_t, int64_t) { return 0.0; }, "dense");
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
