// Steps of many sequences on a GPU against the oracle, which takes them one after the other: rows and pages in any
// order, sequences of any length, and no launch for each.
#include <algorithm>
#include <numeric>

#include "tests/ops/cuda/cuda_testing.h"

namespace runahead::testing {
namespace {

struct Heads {
  int64_t q_heads;
  int64_t kv_heads;
  int64_t head_dim;
};

/// Sequences of the given lengths on pages of one cache, in any order, some of them neighbours.
struct Pages {
  Pages(std::mt19937& random, const std::vector<int64_t>& lengths, bool straight) {
    int64_t pages = 0;
    for (const int64_t length : lengths) pages += PagesOf(length);
    std::vector<int32_t> order(static_cast<size_t>(pages + 3));
    std::iota(order.begin(), order.end(), 0);
    if (!straight) std::shuffle(order.begin(), order.end(), random);
    rows = std::ssize(order) * kPageRows;
    auto next = order.begin();
    for (const int64_t length : lengths) {
      lists.emplace_back(next, next + PagesOf(length));
      next += PagesOf(length);
    }
    for (const std::vector<int32_t>& list : lists) tables.emplace_back(list);
  }
  std::vector<std::vector<int32_t>> lists;
  std::vector<PageTable> tables;
  int64_t rows = 0;
};

class CudaSequencesTest : public CudaOpsTest {
 protected:
  /// One query behind each sequence. `alone`: rows of q that lie between theirs.
  void CompareAttention(DType dtype, const Heads& heads, const std::vector<int64_t>& lengths, bool straight,
                        int64_t window = 0, float softcap = 0, bool biased = false) {
    const Pages pages(random, lengths, straight);
    const auto n = std::ssize(lengths);
    HostTensor q(dtype, {n, heads.q_heads, heads.head_dim}, 8);
    HostTensor k(dtype, {pages.rows, heads.kv_heads, heads.head_dim});  // NaN where no sequence looks
    HostTensor v = k;
    q.Randomise(random);
    double largest = 0;
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < lengths.size(); ++i) {
      for (int64_t p = window > 0 ? std::max<int64_t>(0, lengths[i] - window) : 0; p < lengths[i]; ++p) {
        const int64_t row = pages.tables[i].RowOf(p);
        for (int64_t j = 0; j < k.columns(); ++j) {
          k.Set(row, j, normal(random));
          v.Set(row, j, normal(random));
          largest = std::max(largest, std::abs(double{v.At(row, j)}));
        }
      }
    }
    HostTensor bias(DType::kF32, {heads.q_heads, *std::max_element(lengths.begin(), lengths.end()) + 5});
    bias.Randomise(random, 2);
    Mirror gpu_q = Put(q);
    Mirror gpu_k = Put(k);
    Mirror gpu_v = Put(v);
    Mirror gpu_bias = Put(bias);
    HostTensor expected(dtype, {n, heads.q_heads, heads.head_dim});
    AttentionOptions options;
    options.scale = 2.0f / std::sqrt(static_cast<float>(heads.head_dim));
    options.window = window;
    options.softcap = softcap;
    const auto tasks_of = [&](TensorView queries, TensorView keys, TensorView values, TensorView biases,
                              TensorView out) {
      std::vector<AttentionTask> tasks;
      for (int64_t i = 0; i < n; ++i) {
        const auto index = static_cast<size_t>(i);
        const PageTable& table = pages.tables[index];
        const int64_t first = table.straight() ? table.first_row() : 0;
        const int64_t last = table.straight() ? first + lengths[index] : pages.rows;
        AttentionOptions own = options;
        if (biased) own.key_bias = biases;
        tasks.push_back({queries.Rows(i, i + 1), lengths[index] - 1,
                         KvRows(keys.Rows(first, last), values.Rows(first, last), lengths[index],
                                table.straight() ? PageTable(lengths[index]) : table),
                         own, out.Rows(i, i + 1)});
      }
      return tasks;
    };
    oracle->AttentionOfMany(tasks_of(q.view(), k.view(), v.view(), bias.view(), expected.view()), *stream);
    const double score = SumTolerance(DType::kF32, heads.head_dim, 4) * (1 + softcap);
    const double weights = (4 * UnitRoundoff(dtype) + score) * largest;
    for (int run = 0; run < 2; ++run) {  // the second one meets what the first left behind
      HostTensor actual(dtype, {n, heads.q_heads, heads.head_dim}, 8);
      Mirror gpu_actual = Put(actual);
      gpu->AttentionOfMany(tasks_of(gpu_q.view(), gpu_k.view(), gpu_v.view(), gpu_bias.view(), gpu_actual.view()),
                           *gpu_stream);
      gpu_actual.Fetch();
      ExpectNear(
          actual, expected,
          [&](int64_t i, int64_t j) { return 2 * UnitRoundoff(dtype) * std::abs(expected.At(i, j)) + weights; },
          fmt::format("attention of {} sequences, {} heads {}/{} x {}, {}, window {}, softcap {}, bias {}", n,
                      Name(dtype), heads.q_heads, heads.kv_heads, heads.head_dim, straight ? "straight" : "scattered",
                      window, softcap, biased));
    }
  }

  /// Rows of several sequences: one each, or some more, at the ends of the given lengths.
  void CompareHeads(DType dtype, const Heads& heads, int64_t rotary_dim, bool normed, bool with_queries) {
    const std::vector<int64_t> lengths{1, 130, 128, 129, 300, 7, 256};
    const std::vector<int64_t> counts{1, 1, 1, 1, 40, 3, 1};
    const Pages pages(random, lengths, false);
    const int64_t n = std::accumulate(counts.begin(), counts.end(), int64_t{0});
    HostTensor qkv(dtype, {n, (heads.q_heads + 2 * heads.kv_heads) * heads.head_dim});
    HostTensor k(dtype, {pages.rows, heads.kv_heads, heads.head_dim});
    HostTensor v = k;
    HostTensor gain(DType::kF32, {heads.head_dim});
    HostTensor angles(DType::kF32, {512, std::max<int64_t>(1, rotary_dim / 2)});
    qkv.Randomise(random);
    gain.Randomise(random);
    angles.Randomise(random, 0.5f);
    for (HostTensor* cache : {&k, &v}) cache->Randomise(random);
    HostTensor actual_qkv = qkv;
    HostTensor actual_k = k;
    HostTensor actual_v = v;
    Mirror gpu_qkv = Put(actual_qkv);
    Mirror gpu_k = Put(actual_k);
    Mirror gpu_v = Put(actual_v);
    Mirror gpu_gain = Put(gain);
    Mirror gpu_angles = Put(angles);
    const auto prepare = [&](Ops& ops, TensorView all, TensorView keys, TensorView values, TensorView gains,
                             TensorView table, Stream& on) {
      const Norm norm = MakeNorm(NormKind::kRms, gains, {});
      RopeTable rope;
      rope.cos.view = rope.sin.view = table;
      const HeadSteps steps{normed ? &norm : nullptr, rotary_dim > 0 ? &rope : nullptr};
      const int64_t q_end = heads.q_heads * heads.head_dim;
      const int64_t k_end = q_end + heads.kv_heads * heads.head_dim;
      std::vector<HeadRows> pieces;
      int64_t row = 0;
      for (size_t i = 0; i < lengths.size(); ++i) {
        for (int64_t begin = lengths[i] - counts[i]; begin < lengths[i];) {
          const int64_t end = pages.tables[i].StraightEnd(begin, lengths[i]);
          const TensorView own = all.Rows(row, row + end - begin);
          const int64_t at = pages.tables[i].RowOf(begin);
          pieces.push_back(
              {with_queries ? own.Columns(0, q_end).SplitRows(heads.q_heads, heads.head_dim) : TensorView(),
               own.Columns(q_end, k_end).SplitRows(heads.kv_heads, heads.head_dim),
               own.Columns(k_end, all.row_elements()).SplitRows(heads.kv_heads, heads.head_dim),
               steps,
               steps,
               {0, begin, end, keys.Rows(at, at + end - begin), values.Rows(at, at + end - begin)}});
          row += end - begin;
          begin = end;
        }
      }
      ops.PrepareHeadsOfMany(pieces, on);
    };
    prepare(*oracle, qkv.view(), k.view(), v.view(), gain.view(), angles.view(), *stream);
    prepare(*gpu, gpu_qkv.view(), gpu_k.view(), gpu_v.view(), gpu_gain.view(), gpu_angles.view(), *gpu_stream);
    gpu_qkv.Fetch();
    gpu_k.Fetch();
    gpu_v.Fetch();
    // A norm multiplies by gains below 5, a rotation adds two products with angles below 3.
    const double error = 2 * UnitRoundoff(dtype) * (normed ? 5 : 1) * 6 * 6 + 1e-5;
    const std::string what =
        fmt::format("{} {} heads of {}, rotary {}{}{}", Name(dtype), heads.kv_heads, heads.head_dim, rotary_dim,
                    normed ? ", normed" : "", with_queries ? "" : ", keys and values alone");
    const auto allowed = [&](int64_t, int64_t) { return error; };
    ExpectNear(actual_k, k, allowed, "keys, " + what);
    ExpectNear(actual_v, v, allowed, "values, " + what);
    HostTensor queries(dtype, {n, heads.q_heads * heads.head_dim});
    HostTensor expected_queries = queries;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < queries.columns(); ++j) {
        queries.Set(i, j, actual_qkv.At(i, j));
        expected_queries.Set(i, j, qkv.At(i, j));
      }
    }
    ExpectNear(queries, expected_queries, allowed, "queries, " + what);
  }
};

const std::vector<int64_t> kLengths{1, 2, 63, 64, 65, 127, 128, 129, 255, 256, 257, 700, 1024, 3001};

TEST_F(CudaSequencesTest, AttentionOfHeadsOfAllKinds) {
  for (const DType dtype : kAllDTypes) {
    for (const bool straight : {false, true}) {
      for (const int64_t head_dim : {64, 128, 256}) {
        for (const auto& [q_heads, kv_heads] : {std::pair<int64_t, int64_t>{4, 4}, {8, 2}, {5, 1}, {18, 1}}) {
          CompareAttention(dtype, {q_heads, kv_heads, head_dim}, kLengths, straight);
        }
      }
      CompareAttention(dtype, {71, 1, 64}, {300, 1, 129}, straight);
      for (const int64_t head_dim : {8, 20, 80, 96}) {
        CompareAttention(dtype, {4, 2, head_dim}, {1, 200, 129}, straight);
        CompareAttention(dtype, {3, 3, head_dim}, {1, 200, 129}, straight);
      }
    }
  }
}

TEST_F(CudaSequencesTest, AttentionWithinWindowsAndWithCapsAndBiases) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t window : {1, 60, 128, 200, 5000}) {
      CompareAttention(dtype, {4, 4, 64}, kLengths, false, window);
      CompareAttention(dtype, {8, 2, 128}, kLengths, false, window);
    }
    CompareAttention(dtype, {4, 2, 64}, kLengths, false, 0, 5.0f);
    CompareAttention(dtype, {4, 2, 64}, kLengths, false, 0, 0, true);
    CompareAttention(dtype, {5, 5, 64}, kLengths, false, 0, 0, true);
  }
}

TEST_F(CudaSequencesTest, AttentionOfMoreSequencesThanMultiprocessors) {
  std::vector<int64_t> lengths(300);
  for (int64_t& length : lengths) length = std::uniform_int_distribution<int64_t>(1, 400)(random);
  CompareAttention(DType::kBF16, {8, 2, 64}, lengths, false);
  CompareAttention(DType::kBF16, {2, 2, 64}, lengths, false);
  CompareAttention(DType::kBF16, {2, 1, 128}, {9000, 1, 5}, false);
  CompareAttention(DType::kBF16, {1, 1, 128}, {9000, 1, 5}, true);
}

TEST_F(CudaSequencesTest, RotatesAndAppendsRowsOfMany) {
  for (const DType dtype : kAllDTypes) {
    for (const bool with_queries : {true, false}) {
      for (const auto& [head_dim, rotary_dim] :
           {std::pair<int64_t, int64_t>{64, 64}, {96, 32}, {10, 10}, {128, 128}, {64, 0}}) {
        CompareHeads(dtype, {4, 2, head_dim}, rotary_dim, false, with_queries);
        CompareHeads(dtype, {3, 1, head_dim}, rotary_dim, true, with_queries);
      }
    }
  }
}

TEST_F(CudaSequencesTest, KeepsRows) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t features : {7, 64, 4096}) {
      std::vector<int64_t> rows;
      for (int64_t row = 3; row < 200; row += std::uniform_int_distribution<int64_t>(1, 4)(random))
        rows.push_back(row);
      HostTensor x(dtype, {200, features}, 8);
      x.Randomise(random);
      HostTensor actual = x;
      Mirror gpu_x = Put(actual);
      const TensorView kept = gpu->KeepRows(gpu_x.view(), rows, *gpu_stream);
      EXPECT_EQ(kept.data(), gpu_x.view().data());
      EXPECT_EQ(kept.rows(), std::ssize(rows));
      gpu_x.Fetch();
      for (size_t i = 0; i < rows.size(); ++i) {
        for (int64_t j = 0; j < features; ++j) {
          ASSERT_EQ(actual.At(static_cast<int64_t>(i), j), x.At(rows[i], j)) << Name(dtype) << " row " << i;
        }
      }
    }
  }
}

TEST_F(CudaSequencesTest, ChoosesTheLikeliestOfEachRow) {
  for (const int64_t rows : {1, 5, 64}) {
    HostTensor logits(DType::kF32, {rows, 32003});
    logits.Randomise(random);
    std::vector<int32_t> expected;
    for (int64_t i = 0; i < rows; ++i) {
      const auto at = static_cast<int32_t>(std::uniform_int_distribution<int64_t>(0, 32000)(random));
      logits.Set(i, at, 50);
      logits.Set(i, at + 2, 50);
      expected.push_back(at);
    }
    if (rows > 1) {
      logits.Set(1, 77, std::numeric_limits<float>::quiet_NaN());
      expected[1] = -1;
    }
    Mirror gpu_logits = Put(logits);
    const std::span<const int32_t> chosen = gpu->LikeliestOfMany(gpu_logits.view(), *gpu_stream);
    gpu_stream->Synchronize();
    EXPECT_EQ(std::vector<int32_t>(chosen.begin(), chosen.end()), expected);
  }
}

/// What a row gives by itself, with deterministic operations, against what it gives in company.
class CudaDeterministicTest : public CudaSequencesTest {
 protected:
  void SetUp() override {
    CudaSequencesTest::SetUp();
    if (!IsSkipped()) same = MakeCudaOps(*gpu_device, 0, true);
  }
  std::unique_ptr<Ops> same;
};

TEST_F(CudaDeterministicTest, ProductsOfARowDoNotDependOnOthers) {
  for (const DType dtype : kAllDTypes) {
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>{64, 96}, {4096, 512}, {11008, 4096}, {768, 32000}}) {
      HostTensor weights(dtype, {out, in});
      weights.Randomise(random);
      const auto linear = same->Prepare({{{weights.view()}, {}}}, dtype);
      constexpr int64_t kRows = 700;
      HostTensor x(dtype, {kRows, in});
      x.Randomise(random);
      Mirror gpu_x = Put(x);
      HostTensor all(dtype, {kRows, out});
      Mirror gpu_all = Put(all);
      same->Matmul(gpu_x.view(), *linear, gpu_all.view(), *gpu_stream);
      gpu_all.Fetch();
      for (const auto& [first, rows] : {std::pair<int64_t, int64_t>{0, 1}, {699, 1}, {3, 7}, {64, 64}, {100, 300}}) {
        HostTensor part(dtype, {rows, out});
        Mirror gpu_part = Put(part);
        same->Matmul(gpu_x.view().Rows(first, first + rows), *linear, gpu_part.view(), *gpu_stream);
        gpu_part.Fetch();
        int64_t differ = 0;
        for (int64_t i = 0; i < rows; ++i) {
          for (int64_t j = 0; j < out; ++j) differ += part.At(i, j) != all.At(first + i, j) ? 1 : 0;
        }
        EXPECT_EQ(differ, 0) << Name(dtype) << " " << in << " -> " << out << ", rows " << first << " + " << rows;
      }
    }
  }
}

TEST_F(CudaDeterministicTest, AttentionOfARowDoesNotDependOnOthers) {
  for (const DType dtype : kAllDTypes) {
    for (const auto& [heads, window] : {std::pair<Heads, int64_t>{{4, 4, 128}, 0},
                                        {{8, 2, 128}, 0},
                                        {{8, 1, 64}, 0},
                                        {{4, 2, 64}, 300},
                                        {{2, 2, 80}, 0}}) {
      constexpr int64_t kRows = 900;
      HostTensor q(dtype, {kRows, heads.q_heads, heads.head_dim});
      HostTensor k(dtype, {kRows, heads.kv_heads, heads.head_dim});
      HostTensor v = k;
      for (HostTensor* tensor : {&q, &k, &v}) tensor->Randomise(random);
      Mirror gpu_q = Put(q);
      Mirror gpu_k = Put(k);
      Mirror gpu_v = Put(v);
      AttentionOptions options;
      options.scale = 0.1f;
      options.window = window;
      HostTensor all(dtype, {kRows, heads.q_heads, heads.head_dim});
      Mirror gpu_all = Put(all);
      const auto attend = [&](int64_t first, int64_t rows, Mirror& out) {
        same->Attention(
            gpu_q.view().Rows(first, first + rows), first,
            KvSpan{0, 0, first + rows, gpu_k.view().Rows(0, first + rows), gpu_v.view().Rows(0, first + rows)},
            options, out.view(), *gpu_stream);
        out.Fetch();
      };
      attend(0, kRows, gpu_all);
      for (const auto& [first, rows] :
           {std::pair<int64_t, int64_t>{0, 1}, {899, 1}, {5, 3}, {127, 2}, {128, 200}, {300, 600}, {1, 400}}) {
        HostTensor part(dtype, {rows, heads.q_heads, heads.head_dim});
        Mirror gpu_part = Put(part);
        attend(first, rows, gpu_part);
        int64_t differ = 0;
        for (int64_t i = 0; i < rows; ++i) {
          for (int64_t j = 0; j < part.columns(); ++j) differ += part.At(i, j) != all.At(first + i, j) ? 1 : 0;
        }
        EXPECT_EQ(differ, 0) << Name(dtype) << " heads " << heads.q_heads << "/" << heads.kv_heads << " x "
                             << heads.head_dim << ", window " << window << ", rows " << first << " + " << rows;
      }
    }
  }
}

}  // namespace
}  // namespace runahead::testing
