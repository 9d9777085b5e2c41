// Attention on a GPU against the oracle: through cuDNN and through the split kernel, over the heads of all families.
#include "ops/cuda/cudnn_attention.h"
#include "tensor/cuda_stream.h"
#include "tests/ops/cuda/cuda_testing.h"

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
  bool biased = false;
  bool sinks = false;
};

class CudaAttentionTest : public CudaOpsTest {
 protected:
  /// `beyond`: rows of the cache behind the last query; they hold NaN, as do those before the first query's window.
  void Compare(const Case& c, DType dtype, int64_t gap = 0, int64_t beyond = 0) {
    HostTensor q(dtype, {c.queries, c.q_heads, c.head_dim}, gap);
    HostTensor k(dtype, {c.keys + beyond, c.kv_heads, c.head_dim});
    HostTensor v = k;
    HostTensor bias(DType::kF32, {c.q_heads, c.keys + beyond + 5});
    q.Randomise(random);
    const int64_t unseen = c.window > 0 ? std::max<int64_t>(0, c.keys - c.queries - c.window + 1) : 0;
    Fill(k, unseen, c.keys);
    Fill(v, unseen, c.keys);
    bias.Randomise(random, 2);
    HostTensor sinks(DType::kF32, {c.q_heads});
    sinks.Randomise(random, 2, 2);
    Mirror gpu_q = Put(q);
    Mirror gpu_k = Put(k);
    Mirror gpu_v = Put(v);
    Mirror gpu_bias = Put(bias);
    Mirror gpu_sinks = Put(sinks);
    const KvSpan keys{0, 0, c.keys + beyond, k.view(), v.view()};
    const KvSpan gpu_keys{0, 0, c.keys + beyond, gpu_k.view(), gpu_v.view()};
    AttentionOptions options;
    options.scale = 2.0f / std::sqrt(static_cast<float>(c.head_dim));
    options.window = c.window;
    options.softcap = c.softcap;
    AttentionOptions gpu_options = options;
    if (c.biased) options.key_bias = bias.view();
    if (c.biased) gpu_options.key_bias = gpu_bias.view();
    if (c.sinks) options.sinks = sinks.view();
    if (c.sinks) gpu_options.sinks = gpu_sinks.view();

    const Shape shape{c.queries, c.q_heads, c.head_dim};
    HostTensor expected(dtype, shape);
    oracle->Attention(q.view(), c.keys - c.queries, keys, options, expected.view(), *stream);
    // A score of unit normal operands times 2 / sqrt(head_dim) has norm 2; its rounding is a relative error of the
    // weights, as is the rounding of the weights themselves (tests/ops/attention_test.cc).
    const double score = SumTolerance(DType::kF32, c.head_dim, 4) * (1 + c.softcap);
    double largest = 0;
    for (int64_t i = unseen; i < c.keys; ++i) {
      for (int64_t j = 0; j < c.kv_heads * c.head_dim; ++j) largest = std::max(largest, std::abs(double{v.At(i, j)}));
    }
    const double weights = (4 * UnitRoundoff(dtype) + score) * largest;
    for (const CausalWork causal : {CausalWork::kSkip, CausalWork::kDense}) {
      // Dense work reads what lies behind, and what it makes of it must not show.
      HostTensor actual(dtype, shape, gap);
      Mirror gpu_actual = Put(actual);
      gpu_options.causal = causal;
      gpu->Attention(gpu_q.view(), c.keys - c.queries, gpu_keys, gpu_options, gpu_actual.view(), *gpu_stream);
      gpu_actual.Fetch();
      ExpectNear(
          actual, expected,
          [&](int64_t i, int64_t j) { return 2 * UnitRoundoff(dtype) * std::abs(expected.At(i, j)) + weights; },
          fmt::format(
              "attention {} {}/{} heads {}/{} x {}, window {}, softcap {}, bias {}, sinks {}, gap {}, beyond {}{}",
              Name(dtype), c.queries, c.keys, c.q_heads, c.kv_heads, c.head_dim, c.window, c.softcap, c.biased,
              c.sinks, gap, beyond, causal == CausalWork::kDense ? ", dense" : ""));
    }
  }

  /// Unit normal numbers in rows [begin, end); the rest stays NaN.
  void Fill(HostTensor& tensor, int64_t begin, int64_t end) {
    std::normal_distribution<float> normal;
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < tensor.columns(); ++j) tensor.Set(i, j, normal(random));
    }
  }
};

TEST_F(CudaAttentionTest, FindsKeysOnPagesInAnyOrder) {
  const std::vector<int32_t> pages{5, 2, 3, 0};
  const PageTable table(pages);
  constexpr int64_t kKeys = 3 * kPageRows + 40;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t queries : {1, 3, 200}) {
      for (const int64_t window : {0, 150}) {
        HostTensor q(dtype, {queries, 4, 64});
        HostTensor k(dtype, {6 * kPageRows, 2, 64});
        HostTensor v = k;
        q.Randomise(random);
        k.Randomise(random);
        v.Randomise(random);
        Mirror gpu_q = Put(q);
        Mirror gpu_k = Put(k);
        Mirror gpu_v = Put(v);
        AttentionOptions options;
        options.scale = 0.25f;
        options.window = window;
        HostTensor expected(dtype, {queries, 4, 64});
        HostTensor actual = expected;
        Mirror gpu_actual = Put(actual);
        oracle->Attention(q.view(), kKeys - queries, KvRows(k.view(), v.view(), kKeys, table), options,
                          expected.view(), *stream);
        gpu->Attention(gpu_q.view(), kKeys - queries, KvRows(gpu_k.view(), gpu_v.view(), kKeys, table), options,
                       gpu_actual.view(), *gpu_stream);
        gpu_actual.Fetch();
        const double allowed = (SumTolerance(DType::kF32, 64, 4) + 4 * UnitRoundoff(dtype)) * v.Largest();
        ExpectNear(
            actual, expected,
            [&](int64_t i, int64_t j) { return 2 * UnitRoundoff(dtype) * std::abs(expected.At(i, j)) + allowed; },
            fmt::format("paged attention {} of {} queries, window {}", Name(dtype), queries, window));
      }
    }
  }
}

TEST_F(CudaAttentionTest, CudnnTakesWhatPromptsAreMadeOf) {
  cuda::CudnnAttention cudnn(*gpu_device, 0);
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (const int64_t head_dim : {64, 80, 96, 128, 256}) {
      for (const int64_t queries : {64, 77}) {
        HostTensor q(dtype, {queries, 8, head_dim});
        HostTensor k(dtype, {200, 2, head_dim});
        Mirror gpu_q = Put(q);
        Mirror gpu_k = Put(k);
        Mirror gpu_out = Put(q);
        EXPECT_TRUE(cudnn.Attend(gpu_q.view(), 200 - queries, KvSpan{0, 0, 200, gpu_k.view(), gpu_k.view()}, {},
                                 gpu_out.view(), {static_cast<CudaStream&>(*gpu_stream).handle(), false}))
            << Name(dtype) << ", heads of " << head_dim << ", " << queries << " queries";
      }
    }
  }
  gpu_stream->Synchronize();
}

TEST_F(CudaAttentionTest, Sinks) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t queries : {1, 5, 40, 300}) {
      for (const int64_t window : {0, 128}) {
        for (const int64_t head_dim : {64, 128}) {
          Compare({queries, 300, 16, 2, head_dim, window, 0, false, true}, dtype, 8);
          Compare({queries, 300, 3, 3, head_dim, window, 0, false, true}, dtype);
        }
      }
    }
    Compare({1, 4000, 64, 8, 64, 0, 0, false, true}, dtype);   // many splits
    Compare({90, 200, 2, 1, 20, 0, 0, false, true}, dtype);    // heads that cuDNN does not take
    Compare({200, 2300, 8, 2, 64, 0, 0, false, true}, dtype);  // not the first plan
  }
}

TEST_F(CudaAttentionTest, HeadSizesAndDTypes) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t head_dim : {8, 20, 32, 64, 72, 80, 96, 128, 256}) {
      Compare({70, 70, 4, 2, head_dim}, dtype);
      Compare({3, 131, 2, 2, head_dim}, dtype, 3);
      Compare({40, 131, 2, 1, head_dim}, dtype, 8);
      Compare({1, 131, 4, 1, head_dim}, dtype, 8);
    }
  }
}

TEST_F(CudaAttentionTest, Groupings) {
  for (const DType dtype : kAllDTypes) {
    for (const auto& [q_heads, kv_heads] : {std::pair<int64_t, int64_t>{1, 1}, {8, 8}, {8, 2}, {71, 1}, {12, 4}}) {
      Compare({33, 90, q_heads, kv_heads, 64}, dtype);
      Compare({1, 77, q_heads, kv_heads, 64}, dtype, 8);
      Compare({5, 77, q_heads, kv_heads, 64}, dtype, 8);
    }
  }
}

// One query of heads that share keys has a kernel of its own: groups that fill its tiles and others, ends within a
// tile, a round of a block and a split, more splits than a warp has lanes.
TEST_F(CudaAttentionTest, DecodingWithSharedKeys) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (const int64_t head_dim : {64, 128, 256}) {
      for (const int64_t keys : {1, 15, 16, 17, 63, 64, 65, 257, 3001}) {
        Compare({1, keys, 8, 2, head_dim}, dtype, 8, 20);
        Compare({1, keys, 8, 2, head_dim, 60}, dtype);
      }
      for (const int64_t group : {2, 3, 7, 8, 9, 16, 17, 24, 25, 71}) {
        Compare({1, 700, group, 1, head_dim}, dtype, 8);
        Compare({1, 130, 2 * group, 2, head_dim}, dtype);
      }
    }
    Compare({1, 9000, 16, 1, 64}, dtype, 0, 7);
    Compare({1, 20000, 8, 2, 128}, dtype);
    Compare({1, 6000, 32, 8, 128, 4096}, dtype);
  }
}

// The counters of the splits are as they were after each call, and nothing is left of the one before.
TEST_F(CudaAttentionTest, DecodingAgainAndAgain) {
  for (int run = 0; run < 20; ++run) Compare({1, 1000 + 37 * run, 16, 4, 128}, DType::kBF16);
}

// A kernel's blocks may be there before the one that writes the keys has ended, and read early what is long settled.
TEST_F(CudaAttentionTest, OneQueryRightBehindManyAppendedRows) {
  constexpr int64_t kRows = 2048;
  constexpr int64_t kHeads = 32;
  const Shape shape{kRows, kHeads, 128};
  HostTensor q(DType::kBF16, {1, kHeads, 128});
  HostTensor values(DType::kBF16, shape);
  HostTensor zeros(DType::kBF16, shape);
  q.Randomise(random);
  values.Randomise(random);
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < zeros.columns(); ++j) zeros.Set(i, j, 0);
  }
  Mirror gpu_q = Put(q);
  Mirror sources[] = {Put(zeros), Put(values)};
  Mirror gpu_k = Put(zeros);
  Mirror gpu_v = Put(zeros);
  const KvSpan rows{0, 0, kRows, gpu_k.view(), gpu_v.view()};
  HostTensor expected(DType::kBF16, {1, kHeads, 128});
  oracle->Attention(q.view(), kRows - 1, KvSpan{0, 0, kRows, values.view(), values.view()}, {}, expected.view(),
                    *stream);
  constexpr int kTimes = 200;  // more than the launches after which rows count as settled
  for (int i = 0; i < kTimes; ++i) {
    for (Mirror& source : sources) {
      HostTensor actual(DType::kBF16, {1, kHeads, 128});
      Mirror gpu_actual = Put(actual);
      gpu->AppendKv(source.view(), source.view(), {}, rows, *gpu_stream);
      gpu->Attention(gpu_q.view(), kRows - 1, rows, {}, gpu_actual.view(), *gpu_stream);
      if (&source == &sources[0]) continue;
      gpu_actual.Fetch();
      double difference = 0;
      for (int64_t j = 0; j < expected.columns(); ++j) {
        difference = std::max(difference, std::abs(double{actual.At(0, j)} - expected.At(0, j)));
      }
      ASSERT_LE(difference, 8 * UnitRoundoff(DType::kBF16)) << "append " << i;
    }
  }
}

TEST_F(CudaAttentionTest, ChunksOfAPrompt) {
  for (const DType dtype : kAllDTypes) {
    for (const auto& [queries, keys] : {std::pair<int64_t, int64_t>{1, 1},
                                        {1, 2},
                                        {1, 65},
                                        {1, 400},
                                        {1, 3000},
                                        {2, 3},
                                        {17, 17},
                                        {63, 127},
                                        {65, 129},
                                        {200, 333}}) {
      Compare({queries, keys, 6, 2, 32}, dtype);
      Compare({queries, keys, 2, 2, 128}, dtype);
    }
  }
}

TEST_F(CudaAttentionTest, RowsBehindTheQueriesAreNotRead) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t queries : {1, 5, 40}) Compare({queries, 110, 4, 2, 64}, dtype, 0, 90);
  }
}

TEST_F(CudaAttentionTest, WindowSoftcapAndKeyBias) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t window : {1, 5, 64, 100, 1000}) {
      Compare({150, 280, 4, 2, 64, window}, dtype);
      Compare({1, 280, 4, 2, 64, window}, dtype);
      Compare({9, 280, 4, 2, 128, window}, dtype);
    }
    Compare({50, 100, 4, 2, 64, 0, 5.0f}, dtype);
    Compare({2, 300, 4, 2, 80, 30, 5.0f}, dtype);
    Compare({50, 100, 4, 2, 64, 0, 0, true}, dtype);
    Compare({1, 700, 5, 1, 64, 0, 0, true}, dtype);
  }
}

TEST_F(CudaAttentionTest, LatentVectors) {
  struct Shapes {
    int64_t queries, keys, heads, rank, turned, window = 0;
  };
  const std::vector<Shapes> all{{1, 1, 4, 24, 6},       {1, 333, 16, 512, 64}, {1, 5000, 16, 512, 64},
                                {3, 700, 128, 512, 64}, {70, 200, 5, 96, 16},  {1, 9000, 20, 512, 64, 4096},
                                {40, 90, 4, 13, 6, 30}, {2, 2100, 40, 256, 32}};
  for (const DType dtype : kAllDTypes) {
    for (const auto& [queries, keys, heads, rank, turned, window] : all) {
      HostTensor q(dtype, {queries, heads, rank}, 8);
      HostTensor turned_q(dtype, {queries, heads, turned}, 16);
      HostTensor latents(dtype, {keys + 3, 1, rank});
      HostTensor turned_keys(dtype, {keys + 3, 1, turned});
      q.Randomise(random);
      turned_q.Randomise(random);
      const int64_t unseen = window > 0 ? std::max<int64_t>(0, keys - queries - window + 1) : 0;
      Fill(latents, unseen, keys);
      Fill(turned_keys, unseen, keys);
      Mirror gpu_q = Put(q);
      Mirror gpu_turned_q = Put(turned_q);
      Mirror gpu_latents = Put(latents);
      Mirror gpu_turned_keys = Put(turned_keys);
      AttentionOptions options;
      options.scale = 2.0f / std::sqrt(static_cast<float>(rank + turned));
      options.window = window;
      AttentionOptions gpu_options = options;
      options.rotated = turned_q.view();
      gpu_options.rotated = gpu_turned_q.view();
      HostTensor expected(dtype, {queries, heads, rank});
      HostTensor actual(dtype, {queries, heads, rank}, 8);
      Mirror gpu_actual = Put(actual);
      oracle->Attention(q.view(), keys - queries, KvSpan{0, 0, keys + 3, turned_keys.view(), latents.view()}, options,
                        expected.view(), *stream);
      gpu->Attention(gpu_q.view(), keys - queries, KvSpan{0, 0, keys + 3, gpu_turned_keys.view(), gpu_latents.view()},
                     gpu_options, gpu_actual.view(), *gpu_stream);
      gpu_actual.Fetch();
      // No value of unit normal numbers is above 6; see Compare.
      const double weights = 6 * SumTolerance(DType::kF32, rank + turned, 4);
      ExpectNear(
          actual, expected,
          [&](int64_t i, int64_t j) { return 2 * UnitRoundoff(dtype) * std::abs(expected.At(i, j)) + weights; },
          fmt::format("latent attention {} {}/{} of {} heads, {} + {}, window {}", Name(dtype), queries, keys, heads,
                      rank, turned, window));
    }
  }
}

/// The numbers of `tensor` in f32.
HostTensor Widened(HostTensor& tensor) {
  HostTensor wide(DType::kF32, tensor.view().shape());
  for (int64_t i = 0; i < tensor.rows(); ++i) {
    for (int64_t j = 0; j < tensor.columns(); ++j) wide.Set(i, j, tensor.At(i, j));
  }
  return wide;
}

/// sqrt(sum of squares) of all elements of a - b, or of a.
double RootOfSquares(const HostTensor& a, const HostTensor* b = nullptr) {
  double squares = 0;
  for (int64_t i = 0; i < a.rows(); ++i) {
    for (int64_t j = 0; j < a.columns(); ++j) {
      squares += std::pow(static_cast<double>(a.At(i, j)) - (b == nullptr ? 0.0 : b->At(i, j)), 2);
    }
  }
  return std::sqrt(squares);
}

// The oracle lets queries as wide as the latent vectors meet these, in f32. Rounding keys moves scores of deviation 2
// by 2 / sqrt(3) units, rounding weights, values and results moves each by 1 / sqrt(3): together 1.5 units of the
// result.
TEST_F(CudaAttentionTest, HeadsMadeOfLatentVectors) {
  struct Shapes {
    int64_t queries, keys, heads, rank, turned, plain, value;
  };
  const std::vector<Shapes> all{{17, 17, 4, 64, 16, 32, 32},
                                {120, 233, 16, 512, 64, 128, 128},
                                {130, 400, 5, 96, 32, 64, 64},
                                {300, 600, 2, 256, 64, 128, 64}};
  for (const DType dtype : kAllDTypes) {
    for (const auto& [queries, keys, heads, rank, turned, plain, value] : all) {
      for (const CausalWork causal : {CausalWork::kSkip, CausalWork::kDense}) {
        const int64_t position = (keys - queries) / 2 / 8 * 8;  // of kDense there are keys behind the queries
        HostTensor q(dtype, {queries, heads, plain}, 8);
        HostTensor turned_q(dtype, {queries, heads, turned}, 16);
        HostTensor latents(dtype, {keys + 3, 1, rank});
        HostTensor turned_keys(dtype, {keys + 3, 1, turned});
        q.Randomise(random);
        turned_q.Randomise(random);
        Fill(latents, 0, keys);
        Fill(turned_keys, 0, keys);
        std::vector<HostTensor> maps;
        std::vector<HostTensor> wide_maps;
        std::vector<LinearPart> key_parts(static_cast<size_t>(heads));
        std::vector<LinearPart> value_parts = key_parts;
        std::vector<LinearPart> wide_key_parts = key_parts;
        std::vector<LinearPart> wide_value_parts = key_parts;
        maps.reserve(2 * key_parts.size());
        wide_maps.reserve(2 * key_parts.size());
        const auto map = [&](Shape shape, LinearPart& part, LinearPart& wide_part) {
          maps.emplace_back(dtype, shape).Randomise(random, 1 / std::sqrt(static_cast<float>(rank)));
          wide_maps.push_back(Widened(maps.back()));
          part.weights = {maps.back().view()};
          wide_part.weights = {wide_maps.back().view()};
        };
        for (size_t i = 0; i < key_parts.size(); ++i) {
          map({rank, plain}, key_parts[i], wide_key_parts[i]);
          map({value, rank}, value_parts[i], wide_value_parts[i]);
        }
        AttentionOptions options;
        options.scale = 2.0f / std::sqrt(static_cast<float>(plain + turned));

        HostTensor wide_q = Widened(q);
        HostTensor wide_turned_q = Widened(turned_q);
        HostTensor wide_latents = Widened(latents);
        HostTensor wide_turned_keys = Widened(turned_keys);
        HostTensor met(DType::kF32, {queries, heads, rank});
        HostTensor seen(DType::kF32, {queries, heads, rank});
        HostTensor expected(DType::kF32, {queries, heads, value});
        const auto wide_keys = oracle->Prepare(wide_key_parts, DType::kF32);
        const auto wide_values = oracle->Prepare(wide_value_parts, DType::kF32);
        oracle->MatmulByHead(wide_q.view().AsMatrix(), *wide_keys, met.view().AsMatrix(), *stream);
        options.rotated = wide_turned_q.view();
        oracle->Attention(met.view(), position,
                          KvSpan{0, 0, position + queries, wide_turned_keys.view().Rows(0, position + queries),
                                 wide_latents.view().Rows(0, position + queries)},
                          options, seen.view(), *stream);
        oracle->MatmulByHead(seen.view().AsMatrix(), *wide_values, expected.view().AsMatrix(), *stream);

        Mirror gpu_q = Put(q);
        Mirror gpu_turned_q = Put(turned_q);
        Mirror gpu_latents = Put(latents);
        Mirror gpu_turned_keys = Put(turned_keys);
        HostTensor actual(dtype, {queries, heads, value}, 8);
        Mirror gpu_actual = Put(actual);
        const auto gpu_keys = gpu->Prepare(key_parts, dtype);
        const auto gpu_values = gpu->Prepare(value_parts, dtype);
        options.rotated = gpu_turned_q.view();
        options.causal = causal;
        const int64_t rows = causal == CausalWork::kDense ? keys : position + queries;
        const KvSpan span{0, 0, rows, gpu_turned_keys.view().Rows(0, rows), gpu_latents.view().Rows(0, rows)};
        const bool done = gpu->AttendToExpanded({gpu_q.view(), position, span, options, gpu_actual.view()}, *gpu_keys,
                                                *gpu_values, *gpu_stream);
        SCOPED_TRACE(fmt::format("{} {}/{} of {} heads, {} -> {} + {}, {}", Name(dtype), queries, keys, heads, rank,
                                 plain, turned, value));
        EXPECT_EQ(done, dtype != DType::kF32);
        if (!done) continue;
        gpu_actual.Fetch();
        EXPECT_TRUE(actual.GapsUntouched());
        EXPECT_LE(RootOfSquares(actual, &expected), 2 * UnitRoundoff(dtype) * RootOfSquares(expected));
      }
    }
  }
}

TEST_F(CudaAttentionTest, LargeScoresDoNotOverflow) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t queries : {1, 5, 40}) {
      HostTensor q(dtype, {queries, 2, 64});
      HostTensor k(dtype, {200, 1, 64});
      HostTensor v(dtype, {200, 1, 64});
      q.Randomise(random, 40);
      k.Randomise(random);
      v.Randomise(random);
      Mirror gpu_q = Put(q);
      Mirror gpu_k = Put(k);
      Mirror gpu_v = Put(v);
      HostTensor expected(dtype, {queries, 2, 64});
      HostTensor actual = expected;
      Mirror gpu_actual = Put(actual);
      oracle->Attention(q.view(), 200 - queries, KvSpan{0, 0, 200, k.view(), v.view()}, {}, expected.view(), *stream);
      gpu->Attention(gpu_q.view(), 200 - queries, KvSpan{0, 0, 200, gpu_k.view(), gpu_v.view()}, {},
                     gpu_actual.view(), *gpu_stream);
      gpu_actual.Fetch();
      // Scores of norm 320 put a rounding of 320 u sqrt(64) into the exponent.
      const double allowed = (SumTolerance(DType::kF32, 64, 2 * 320) + 4 * UnitRoundoff(dtype)) * v.Largest();
      ExpectNear(
          actual, expected, [&](int64_t, int64_t) { return allowed; }, "large scores");
    }
  }
}

}  // namespace
}  // namespace runahead::testing
