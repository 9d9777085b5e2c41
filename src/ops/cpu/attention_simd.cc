// Attention with products in f32: Highway vectors, any dtype. Lanes are keys in the scores and features in the
// output, so that nothing is summed across lanes.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/cpu/attention_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/attention_simd.cc"
#include <hwy/foreach_target.h>

#include "ops/cpu/simd-inl.h"

#ifndef RUNAHEAD_OPS_CPU_ATTENTION_SIMD_ONCE_
#define RUNAHEAD_OPS_CPU_ATTENTION_SIMD_ONCE_
namespace runahead::cpu {

constexpr int64_t kKeys = 64;      // of a block
constexpr int64_t kTileRows = 96;  // a multiple of every kernel's rows

/// Features rounded up to whole vectors of any target.
constexpr int64_t Padded(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

/// One worker's memory, in floats: queries [kTileRows, head_dim], output [kTileRows, Padded], the weights of one
/// group of rows [kTileRows, kKeys], and per row the maximum, the factor of the last step and 16 partial sums.
struct Workspace {
  Workspace(std::byte* memory, int64_t head_dim) : queries(reinterpret_cast<float*>(memory)) {
    output = queries + kTileRows * Padded(head_dim);
    weights = output + kTileRows * Padded(head_dim);
    sums = weights + kTileRows * kKeys;
    maxima = sums + kTileRows * 16;
    factors = maxima + kTileRows;
  }
  static size_t Bytes(int64_t head_dim) {
    return static_cast<size_t>(kTileRows * (2 * Padded(head_dim) + kKeys + 16 + 2)) * sizeof(float);
  }

  float* queries;
  float* output;
  float* weights;
  float* sums;
  float* maxima;
  float* factors;
};

}  // namespace runahead::cpu
#endif  // once

HWY_BEFORE_NAMESPACE();
namespace runahead::cpu::HWY_NAMESPACE {

// The accumulators of kRows x kColumns vectors leave registers for one row of the right matrix and a broadcast.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr size_t kRows = 6;
constexpr size_t kColumns = 4;
#else
constexpr size_t kRows = 6;
constexpr size_t kColumns = 2;
#endif

/// c = factors * c + a b for kRows rows and C vectors of columns. a: [kRows, depth]; b: [depth, columns]; c: [kRows,
/// columns]; factors: [kRows], or null where c is not read.
template <size_t C>
HWY_INLINE void MultiplyBlock(FloatTag d, const float* HWY_RESTRICT a, size_t a_stride, const float* HWY_RESTRICT b,
                              size_t b_stride, size_t depth, const float* factors, float* HWY_RESTRICT c,
                              size_t c_stride) {
  const size_t lanes = hn::Lanes(d);
  FloatVec sum[kRows][C];
#pragma GCC unroll 8
  for (size_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (size_t j = 0; j < C; ++j) {
      sum[i][j] = factors != nullptr ? hn::Mul(hn::Set(d, factors[i]), hn::LoadU(d, c + i * c_stride + j * lanes))
                                     : hn::Zero(d);
    }
  }
  for (size_t k = 0; k < depth; ++k) {
    FloatVec row[C];
#pragma GCC unroll 8
    for (size_t j = 0; j < C; ++j) row[j] = hn::LoadU(d, b + k * b_stride + j * lanes);
#pragma GCC unroll 8
    for (size_t i = 0; i < kRows; ++i) {
      const auto factor = hn::Set(d, a[i * a_stride + k]);
#pragma GCC unroll 8
      for (size_t j = 0; j < C; ++j) sum[i][j] = hn::MulAdd(factor, row[j], sum[i][j]);
    }
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (size_t j = 0; j < C; ++j) hn::StoreU(sum[i][j], d, c + i * c_stride + j * lanes);
  }
}

/// MultiplyBlock for `columns` columns, a multiple of the lanes.
HWY_INLINE void Multiply(FloatTag d, const float* a, size_t a_stride, const float* b, size_t b_stride, size_t depth,
                         const float* factors, float* c, size_t c_stride, size_t columns) {
  const size_t lanes = hn::Lanes(d);
  size_t j = 0;
  for (; j + kColumns * lanes <= columns; j += kColumns * lanes) {
    MultiplyBlock<kColumns>(d, a, a_stride, b + j, b_stride, depth, factors, c + j, c_stride);
  }
  if constexpr (kColumns > 2) {
    for (; j + 2 * lanes <= columns; j += 2 * lanes) {
      MultiplyBlock<2>(d, a, a_stride, b + j, b_stride, depth, factors, c + j, c_stride);
    }
  }
  for (; j < columns; j += lanes) {
    MultiplyBlock<1>(d, a, a_stride, b + j, b_stride, depth, factors, c + j, c_stride);
  }
}

/// The keys [first, last] of a block that a row sees; all of them when the block is whole.
struct SeenKeys {
  bool all;
  int32_t first;
  int32_t last;
};

/// Turns the scores of one row into weights in place; updates the row's maximum, sums and factor. `bias`, where not
/// null, holds `biased` values, one for each key of the block that exists.
HWY_INLINE void Soften(FloatTag d, const AttentionOptions& options, SeenKeys seen, const float* bias, int64_t biased,
                       float* HWY_RESTRICT scores, float& maximum, float& factor, float* HWY_RESTRICT sums) {
  const hn::RebindToSigned<FloatTag> di;
  const size_t lanes = hn::Lanes(d);
  const auto keys = static_cast<size_t>(kKeys);
  auto largest = hn::Set(d, maximum);
  if (options.softcap > 0) {
    for (size_t j = 0; j < keys; j += lanes) {
      const auto capped = Tanh(d, hn::LoadU(d, scores + j));
      hn::StoreU(hn::Mul(hn::Set(d, options.softcap * kLog2E), capped), d, scores + j);
    }
  }
  if (bias != nullptr) {
    const auto unit = hn::Set(d, kLog2E);
    ForVectors(d, static_cast<size_t>(std::min(kKeys, biased)),
               [&](auto load, auto store) HWY_ATTR { store(hn::MulAdd(load(bias), unit, load(scores)), scores); });
  }
  if (!seen.all) {
    for (size_t j = 0; j < keys; j += lanes) {
      const auto key = hn::Iota(di, static_cast<int32_t>(j));
      const auto hidden = hn::Or(hn::Lt(key, hn::Set(di, seen.first)), hn::Gt(key, hn::Set(di, seen.last)));
      hn::StoreU(hn::IfThenElse(hn::RebindMask(d, hidden), hn::Set(d, -HUGE_VALF), hn::LoadU(d, scores + j)), d,
                 scores + j);
    }
  }
  for (size_t j = 0; j < keys; j += lanes) largest = hn::Max(largest, hn::LoadU(d, scores + j));
  const auto now = hn::MaxOfLanes(d, largest);
  const float top = hn::GetLane(now);
  factor = hn::GetLane(Exp2(d, hn::Sub(hn::Set(d, maximum), now)));
  maximum = top;
  auto sum = hn::Mul(hn::LoadU(d, sums), hn::Set(d, factor));
  for (size_t j = 0; j < keys; j += lanes) {
    const auto weight = Exp2(d, hn::Sub(hn::LoadU(d, scores + j), now));
    hn::StoreU(weight, d, scores + j);
    sum = hn::Add(sum, weight);
  }
  hn::StoreU(sum, d, sums);
}

/// Panel: keys transposed, [head_dim, kKeys], then values, [kKeys, Padded(head_dim)], both f32. Absent keys are
/// zeros.
void PackSimd(const AttentionCall& call, int64_t kv_head, int64_t block, std::byte* panel) {
  const FloatTag d;
  const int64_t head_dim = call.head_dim();
  const int64_t padded = Padded(head_dim);
  const int64_t begin = block * kKeys;
  const int64_t first = std::max<int64_t>(0, call.first_key() - begin);
  const int64_t count = std::min(kKeys, call.keys() - begin);
  auto* keys = reinterpret_cast<float*>(panel);
  float* values = keys + head_dim * kKeys;
  if (first > 0 || count < kKeys || padded != head_dim) {
    std::memset(panel, 0, static_cast<size_t>((head_dim + padded) * kKeys) * sizeof(float));
  }
  Dispatch(call.k.dtype(), [&](auto zero) HWY_ATTR {
    using T = decltype(zero);
    HWY_ALIGN float row[1024];
    for (int64_t j = first; j < count; ++j) {
      const T* k = call.k.As<T>() + (begin + j) * call.k.row_stride() + kv_head * head_dim;
      const T* v = call.v.As<T>() + (begin + j) * call.v.row_stride() + kv_head * head_dim;
      for (int64_t start = 0; start < head_dim; start += 1024) {
        const int64_t n = std::min<int64_t>(1024, head_dim - start);
        ForVectors(d, static_cast<size_t>(n), [&](auto load, auto store) HWY_ATTR { store(load(k + start), row); });
        for (int64_t i = 0; i < n; ++i) keys[(start + i) * kKeys + j] = row[i];
      }
      ForVectors(d, static_cast<size_t>(head_dim),
                 [&](auto load, auto store) HWY_ATTR { store(load(v), values + j * padded); });
    }
  });
}

void TileSimd(const AttentionCall& call, int64_t kv_head, int64_t row_begin, int64_t row_end, const std::byte* panels,
              int64_t first_block, std::byte* memory) {
  const FloatTag d;
  const int64_t head_dim = call.head_dim();
  const int64_t padded = Padded(head_dim);
  const auto depth = static_cast<size_t>(head_dim);
  const auto stride = static_cast<size_t>(padded);
  const int64_t count = row_end - row_begin;
  const auto group = static_cast<int64_t>(kRows);
  const int64_t rounded = (count + group - 1) / group * group;
  const Workspace work(memory, head_dim);
  const AttentionOptions& options = call.options;

  // Scores come out in units of log2 e, or as the argument of the soft cap's tanh.
  const float scale = options.softcap > 0 ? options.scale / options.softcap : options.scale * kLog2E;
  std::fill_n(work.queries, rounded * padded, 0.0f);
  std::fill_n(work.output, rounded * padded, 0.0f);
  std::fill_n(work.sums, rounded * 16, 0.0f);
  std::fill_n(work.maxima, rounded, kNothingYet);
  Dispatch(call.q.dtype(), [&](auto zero) HWY_ATTR {
    using T = decltype(zero);
    for (int64_t i = 0; i < count; ++i) {
      const T* q = call.q.As<T>() + call.Offset(call.q, kv_head, row_begin + i);
      ForVectors(d, depth, [&](auto load, auto store) HWY_ATTR {
        store(hn::Mul(load(q), hn::Set(d, scale)), work.queries + i * padded);
      });
    }
  });

  const auto blocks = call.BlocksOf(row_begin, row_end, kKeys);
  const size_t panel_floats = static_cast<size_t>((head_dim + padded) * kKeys);
  for (int64_t block = blocks.begin; block < blocks.end; ++block) {
    const auto* keys =
        reinterpret_cast<const float*>(panels) + static_cast<size_t>(block - first_block) * panel_floats;
    const float* values = keys + head_dim * kKeys;
    const int64_t begin = block * kKeys;
    for (int64_t i = 0; i < rounded; i += group) {
      float* scores = work.weights;
      Multiply(d, work.queries + i * padded, stride, keys, kKeys, depth, nullptr, scores, kKeys, kKeys);
      for (int64_t r = i; r < i + group; ++r) {
        const int64_t own = call.PositionOf(std::min(row_begin + r, row_end - 1));
        const int64_t first = call.FirstSeen(own);
        const SeenKeys seen{begin >= first && begin + kKeys - 1 <= own,
                            static_cast<int32_t>(std::clamp<int64_t>(first - begin, 0, kKeys)),
                            static_cast<int32_t>(std::clamp<int64_t>(own - begin, -1, kKeys - 1))};
        Soften(d, options, seen, call.KeyBias(kv_head, row_begin + r, begin), call.keys() - begin,
               scores + (r - i) * kKeys, work.maxima[r], work.factors[r], work.sums + r * 16);
      }
      Multiply(d, scores, kKeys, values, stride, kKeys, work.factors + i, work.output + i * padded, stride, stride);
    }
  }

  Dispatch(call.out.dtype(), [&](auto zero) HWY_ATTR {
    using T = decltype(zero);
    for (int64_t i = 0; i < count; ++i) {
      const auto inverse = hn::Div(hn::Set(d, 1.0f), hn::SumOfLanes(d, hn::LoadU(d, work.sums + i * 16)));
      T* out = call.out.As<T>() + call.Offset(call.out, kv_head, row_begin + i);
      const float* sums = work.output + i * padded;
      ForVectors(d, depth, [&](auto load, auto store) HWY_ATTR { store(hn::Mul(load(sums), inverse), out); });
    }
  });
}

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace runahead::cpu {
HWY_EXPORT(PackSimd);
HWY_EXPORT(TileSimd);

AttentionKernel SimdAttention() {
  return {kKeys,
          kTileRows,
          [](int64_t head_dim) { return static_cast<size_t>((head_dim + Padded(head_dim)) * kKeys) * sizeof(float); },
          &Workspace::Bytes,
          [](const AttentionCall& call, int64_t kv_head, int64_t block, std::byte* panel) {
            HWY_DYNAMIC_DISPATCH(PackSimd)(call, kv_head, block, panel);
          },
          [](const AttentionCall& call, int64_t kv_head, int64_t row_begin, int64_t row_end, const std::byte* panels,
             int64_t first_block, std::byte* workspace) {
            HWY_DYNAMIC_DISPATCH(TileSimd)(call, kv_head, row_begin, row_end, panels, first_block, workspace);
          }};
}

}  // namespace runahead::cpu
#endif  // HWY_ONCE
