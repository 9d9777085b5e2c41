// Attention of a few queries: keys and values are read once, from the cache, by all rows of a kv head. The positions
// are cut into segments of a fixed length for the threads; their results are joined in order (Dao et al. 2023).
#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/cpu/attention_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/attention_few.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>

#include "ops/cpu/simd-inl.h"

#ifndef RUNAHEAD_OPS_CPU_ATTENTION_FEW_ONCE_
#define RUNAHEAD_OPS_CPU_ATTENTION_FEW_ONCE_
namespace runahead::cpu {

constexpr int64_t kSegment = 256;  // keys

/// Floats of a row of queries or sums, with room for a whole vector.
constexpr int64_t FewStride(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

/// What one segment contributes to the rows of one kv head.
struct Partial {
  float maxima[kFewQueries];
  float totals[kFewQueries];
  float* sums;  // [kFewQueries, FewStride]
};

}  // namespace runahead::cpu
#endif  // once

HWY_BEFORE_NAMESPACE();
namespace runahead::cpu::HWY_NAMESPACE {

/// The rows of one head lie far apart, which the processor does not foresee across pages.
constexpr int64_t kAhead = 16;
template <typename T>
HWY_INLINE void PrefetchRow(const T* row, size_t elements) {
  for (size_t i = 0; i < elements; i += 64 / sizeof(T)) hwy::Prefetch(row + i);
}

/// scores[r, j] = queries[r] . keys[j] for kRows rows. Rows of scores are kSegment apart.
template <size_t kRows, typename T>
HWY_INLINE void ScoreKeys(FloatTag d, const float* HWY_RESTRICT queries, size_t stride, const T* keys,
                          int64_t key_stride, int64_t count, size_t head_dim, float* HWY_RESTRICT scores) {
  for (int64_t j = 0; j < count; ++j) {
    const T* key = keys + j * key_stride;
    PrefetchRow(key + kAhead * key_stride, head_dim);
    FloatVec dot[kRows];
#pragma GCC unroll 8
    for (size_t r = 0; r < kRows; ++r) dot[r] = hn::Zero(d);
    size_t i = 0;
    for (; i + hn::Lanes(d) <= head_dim; i += hn::Lanes(d)) {
      const auto k = LoadFloats(d, key + i);
#pragma GCC unroll 8
      for (size_t r = 0; r < kRows; ++r) dot[r] = hn::MulAdd(k, hn::LoadU(d, queries + r * stride + i), dot[r]);
    }
    if (i < head_dim) {
      const auto k = LoadFloatsN(d, key + i, head_dim - i);
#pragma GCC unroll 8
      for (size_t r = 0; r < kRows; ++r) dot[r] = hn::MulAdd(k, hn::LoadU(d, queries + r * stride + i), dot[r]);
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < kRows; ++r) {
      scores[r * kSegment + static_cast<size_t>(j)] = hn::GetLane(hn::SumOfLanes(d, dot[r]));
    }
  }
}

/// sums[r] = sum of weights[r, j] values[j], features [i, i + kVectors vectors).
template <size_t kRows, size_t kVectors, typename T>
HWY_INLINE void WeighValues(FloatTag d, const float* HWY_RESTRICT weights, const T* values, int64_t value_stride,
                            int64_t count, size_t i, float* HWY_RESTRICT sums, size_t stride) {
  const size_t lanes = hn::Lanes(d);
  FloatVec sum[kRows][kVectors];
  SetZero(d, sum);
  for (int64_t j = 0; j < count; ++j) {
    PrefetchRow(values + (j + kAhead) * value_stride + i, kVectors * lanes);
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v) {
      const auto value = LoadFloats(d, values + j * value_stride + i + v * lanes);
#pragma GCC unroll 8
      for (size_t r = 0; r < kRows; ++r) {
        sum[r][v] = hn::MulAdd(hn::Set(d, weights[r * kSegment + static_cast<size_t>(j)]), value, sum[r][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v) hn::StoreU(sum[r][v], d, sums + r * stride + i + v * lanes);
  }
}

template <size_t kRows, typename T>
HWY_INLINE void WeighAllValues(FloatTag d, const float* weights, const T* values, int64_t value_stride, int64_t count,
                               size_t head_dim, float* sums, size_t stride) {
  constexpr size_t kVectors = 16 / kRows < 4 ? 16 / kRows : 4;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + kVectors * lanes <= head_dim; i += kVectors * lanes) {
    WeighValues<kRows, kVectors>(d, weights, values, value_stride, count, i, sums, stride);
  }
  for (; i + lanes <= head_dim; i += lanes) {
    WeighValues<kRows, 1>(d, weights, values, value_stride, count, i, sums, stride);
  }
  for (; i < head_dim; ++i) {
    for (size_t r = 0; r < kRows; ++r) {
      float sum = 0;
      for (int64_t j = 0; j < count; ++j) {
        sum += weights[r * kSegment + static_cast<size_t>(j)] *
               static_cast<float>(values[j * value_stride + static_cast<int64_t>(i)]);
      }
      sums[r * stride + i] = sum;
    }
  }
}

/// Scores of one row into weights, in place. Of its segment's `count` keys it sees [first, own]; `bias`, where not
/// null, is added.
HWY_INLINE void SoftenSegment(FloatTag d, const AttentionOptions& options, int64_t first, int64_t own,
                              const float* bias, float* HWY_RESTRICT scores, int64_t count, float& maximum,
                              float& total) {
  const hn::RebindToSigned<FloatTag> di;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto hidden = hn::Set(d, -HUGE_VALF);
  auto largest = hn::Set(d, kNothingYet);
  if (bias != nullptr) {
    const auto unit = hn::Set(d, kLog2E);
    ForVectors(d, static_cast<size_t>(count),
               [&](auto load, auto store) HWY_ATTR { store(hn::MulAdd(load(bias), unit, load(scores)), scores); });
  }
  for (int64_t j = 0; j < count; j += lanes) {
    auto score = hn::LoadU(d, scores + j);
    if (options.softcap > 0) score = hn::Mul(hn::Set(d, options.softcap * kLog2E), Tanh(d, score));
    if (j < first || j + lanes - 1 > own) {
      const auto key = hn::Iota(di, static_cast<int32_t>(j));
      const auto unseen = hn::Or(hn::Lt(key, hn::Set(di, static_cast<int32_t>(first))),
                                 hn::Gt(key, hn::Set(di, static_cast<int32_t>(own))));
      score = hn::IfThenElse(hn::RebindMask(d, unseen), hidden, score);
    }
    hn::StoreU(score, d, scores + j);
    largest = hn::Max(largest, score);
  }
  const auto top = hn::MaxOfLanes(d, largest);
  auto sum = hn::Zero(d);
  for (int64_t j = 0; j < count; j += lanes) {
    const auto weight = Exp2(d, hn::Sub(hn::LoadU(d, scores + j), top));
    hn::StoreU(weight, d, scores + j);
    sum = hn::Add(sum, weight);
  }
  maximum = hn::GetLane(top);
  total = hn::GetLane(hn::SumOfLanes(d, sum));
}

template <size_t kRows, typename T>
HWY_INLINE void SegmentRows(const AttentionCall& call, int64_t kv_head, int64_t begin, int64_t end,
                            Partial& partial) {
  const FloatTag d;
  const int64_t head_dim = call.head_dim();
  const auto depth = static_cast<size_t>(head_dim);
  const auto stride = static_cast<size_t>(FewStride(head_dim));
  const auto rows = call.rows();
  HWY_ALIGN float scores[kRows * kSegment];
  // Until the values are weighed, the place of their sums holds the queries.
  float* queries = partial.sums;
  const AttentionOptions& options = call.options;
  const float scale = options.softcap > 0 ? options.scale / options.softcap : options.scale * kLog2E;
  std::fill_n(queries, kRows * stride, 0.0f);
  for (int64_t r = 0; r < rows; ++r) {
    const T* q = call.q.As<T>() + call.Offset(call.q, kv_head, r);
    ForVectors(d, depth, [&](auto load, auto store) HWY_ATTR {
      store(hn::Mul(load(q), hn::Set(d, scale)), queries + static_cast<size_t>(r) * stride);
    });
  }
  const T* keys = call.k.As<T>() + begin * call.k.row_stride() + kv_head * head_dim;
  const T* values = call.v.As<T>() + begin * call.v.row_stride() + kv_head * head_dim;
  const int64_t count = end - begin;
  // The last vector of scores may reach behind the segment's end.
  for (size_t r = 0; r < kRows; ++r) std::fill_n(scores + r * kSegment, kSegment, 0.0f);
  ScoreKeys<kRows>(d, queries, stride, keys, call.k.row_stride(), count, depth, scores);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t own = call.PositionOf(r);
    SoftenSegment(d, options, std::clamp<int64_t>(call.FirstSeen(own) - begin, 0, kSegment),
                  std::clamp<int64_t>(own - begin, -1, count - 1), call.KeyBias(kv_head, r, begin),
                  scores + r * kSegment, count, partial.maxima[r], partial.totals[r]);
  }
  WeighAllValues<kRows>(d, scores, values, call.v.row_stride(), count, depth, partial.sums, stride);
}

/// Keys [begin, end) for all rows of one kv head.
void AttendSegment(const AttentionCall& call, int64_t kv_head, int64_t begin, int64_t end, Partial& partial) {
  Dispatch(call.k.dtype(), [&](auto zero) HWY_ATTR {
    using T = decltype(zero);
    const int64_t rows = call.rows();
    if (rows <= 1) return SegmentRows<1, T>(call, kv_head, begin, end, partial);
    if (rows <= 2) return SegmentRows<2, T>(call, kv_head, begin, end, partial);
    if (rows <= 4) return SegmentRows<4, T>(call, kv_head, begin, end, partial);
    return SegmentRows<8, T>(call, kv_head, begin, end, partial);
  });
}

/// The rows of one kv head from what its segments contributed; overwrites the first one's.
void JoinSegments(const AttentionCall& call, int64_t kv_head, Partial* partials, int64_t count) {
  const FloatTag d;
  const auto depth = static_cast<size_t>(call.head_dim());
  const auto stride = static_cast<size_t>(FewStride(call.head_dim()));
  for (int64_t r = 0; r < call.rows(); ++r) {
    float maximum = kNothingYet;
    for (int64_t s = 0; s < count; ++s) maximum = std::max(maximum, partials[s].maxima[r]);
    float* joined = partials[0].sums + static_cast<size_t>(r) * stride;
    float total = 0;
    for (int64_t s = 0; s < count; ++s) {
      const float factor = hn::GetLane(Exp2(d, hn::Set(d, partials[s].maxima[r] - maximum)));
      const float* sums = partials[s].sums + static_cast<size_t>(r) * stride;
      total += factor * partials[s].totals[r];
      ForVectors(d, depth, [&](auto load, auto store) HWY_ATTR {
        const auto scaled = hn::Mul(hn::Set(d, factor), load(sums));
        store(s == 0 ? scaled : hn::Add(load(joined), scaled), joined);
      });
    }
    Dispatch(call.out.dtype(), [&](auto zero) HWY_ATTR {
      auto* out = call.out.As<decltype(zero)>() + call.Offset(call.out, kv_head, r);
      const auto inverse = hn::Set(d, 1 / total);
      ForVectors(d, depth, [&](auto load, auto store) HWY_ATTR { store(hn::Mul(load(joined), inverse), out); });
    });
  }
}

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace runahead::cpu {
HWY_EXPORT(AttendSegment);
HWY_EXPORT(JoinSegments);

void AttendFew(const Team& team, Scratch& scratch, const AttentionCall& call) {
  CHECK_LE(call.rows(), kFewQueries);
  const int64_t kv_heads = call.k.shape()[1];
  const int64_t first = call.first_key() / kSegment;
  const int64_t segments = (call.keys() + kSegment - 1) / kSegment - first;
  const int64_t sums_floats = kFewQueries * FewStride(call.head_dim());
  auto* sums = scratch.Get<float>(static_cast<size_t>(kv_heads * segments * sums_floats));
  std::vector<Partial> partials(static_cast<size_t>(kv_heads * segments));
  for (size_t i = 0; i < partials.size(); ++i) partials[i].sums = sums + static_cast<int64_t>(i) * sums_floats;

  const auto attend = [&](int64_t task) {
    const int64_t begin = (first + task % segments) * kSegment;
    HWY_DYNAMIC_DISPATCH(AttendSegment)
    (call, task / segments, std::max(begin, call.first_key()), std::min(begin + kSegment, call.keys()),
     partials[static_cast<size_t>(task)]);
  };
  constexpr int64_t kWorthAThread = int64_t{1} << 16;  // elements of keys
  team.RunRanges(kv_heads * segments, 1 + kWorthAThread / (kSegment * call.head_dim()),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t task = begin; task < end; ++task) attend(task);
                 });
  for (int64_t head = 0; head < kv_heads; ++head) {
    HWY_DYNAMIC_DISPATCH(JoinSegments)(call, head, &partials[static_cast<size_t>(head * segments)], segments);
  }
}

}  // namespace runahead::cpu
#endif  // HWY_ONCE
