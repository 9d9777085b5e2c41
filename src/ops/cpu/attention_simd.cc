// Attention with products in f32: Highway vectors, any dtype. Lanes are rows, so that nothing is summed across lanes
// and a row's numbers are the same in vectors of every width; keys and values are broadcast as they lie.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "ops/cpu/attention_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/attention_simd.cc"
#include <hwy/foreach_target.h>

#include "ops/cpu/simd-inl.h"

#ifndef RUNAHEAD_OPS_CPU_ATTENTION_SIMD_ONCE_
#define RUNAHEAD_OPS_CPU_ATTENTION_SIMD_ONCE_
namespace runahead::cpu {

/// Floats of keys and values behind a panel's header: keys [kKeyBlock, summed features], then values [kKeyBlock,
/// ValueWidth].
inline int64_t PanelFloats(const HeadSize& size) { return kKeyBlock * (size.summed(1) + ValueWidth(size.value)); }

}  // namespace runahead::cpu
#endif  // once

HWY_BEFORE_NAMESPACE();
namespace runahead::cpu::HWY_NAMESPACE {

// ---- Products --------------------------------------------------------------------------------------------------

// Sums of kLeft elements of a and kVectors vectors of rows fill the registers, and leave some for a row of b.
#if HWY_MAX_BYTES == 64 || HWY_ARCH_ARM
constexpr size_t kLeftOfTwo = 8;
#else
constexpr size_t kLeftOfTwo = 4;
#endif

/// One factor of a product: keys of a panel, whose features are summed, or values, whose keys are. Element (i, k)
/// lies at data[i * stride + k], or of values at data[k * stride + i].
struct Left {
  const float* data;
  size_t stride;
};

/// c = factors * c + a b on kLeft elements of a and kVectors vectors of rows; without factors c is not read. b:
/// [depth, lanes]; c: [kLeft, lanes]; factors: [lanes].
template <bool kValues, size_t kLeft, size_t kVectors, class D>
HWY_INLINE void MultiplyBlock(D d, const Left& a, const float* HWY_RESTRICT b, size_t lanes, size_t depth,
                              const float* factors, float* HWY_RESTRICT c) {
  const size_t width = hn::Lanes(d);
  hn::Vec<D> sum[kLeft][kVectors];
#pragma GCC unroll 8
  for (size_t i = 0; i < kLeft; ++i) {
#pragma GCC unroll 2
    for (size_t v = 0; v < kVectors; ++v) {
      sum[i][v] = factors != nullptr
                      ? hn::Mul(hn::LoadU(d, factors + v * width), hn::LoadU(d, c + i * lanes + v * width))
                      : hn::Zero(d);
    }
  }
  for (size_t k = 0; k < depth; ++k) {
    hn::Vec<D> right[kVectors];
#pragma GCC unroll 2
    for (size_t v = 0; v < kVectors; ++v) right[v] = hn::LoadU(d, b + k * lanes + v * width);
#pragma GCC unroll 8
    for (size_t i = 0; i < kLeft; ++i) {
      const auto left = hn::Set(d, kValues ? a.data[k * a.stride + i] : a.data[i * a.stride + k]);
#pragma GCC unroll 2
      for (size_t v = 0; v < kVectors; ++v) sum[i][v] = hn::MulAdd(left, right[v], sum[i][v]);
    }
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < kLeft; ++i) {
#pragma GCC unroll 2
    for (size_t v = 0; v < kVectors; ++v) hn::StoreU(sum[i][v], d, c + i * lanes + v * width);
  }
}

/// MultiplyBlock for `count` elements of a, a multiple of 8, and all lanes.
template <bool kValues, class D>
HWY_INLINE void Multiply(D d, const Left& a, size_t count, const float* b, size_t lanes, size_t depth,
                         const float* factors, float* c, const RowsAhead& ahead) {
  const size_t width = hn::Lanes(d);
  const auto part = static_cast<int64_t>(count / 8);
  for (int64_t i = 0; i < part; ++i) {
    ahead.Fetch(i * kKeyBlock / part, (i + 1) * kKeyBlock / part);
    const size_t first = static_cast<size_t>(i) * 8;
    const float* from = a.data + (kValues ? first : first * a.stride);
    for (size_t lane = 0; lane < lanes;) {
      const float* own = factors != nullptr ? factors + lane : nullptr;
      float* to = c + first * lanes + lane;
      if (lane + 2 * width > lanes) {
        MultiplyBlock<kValues, 8, 1>(d, {from, a.stride}, b + lane, lanes, depth, own, to);
        lane += width;
        continue;
      }
      for (size_t left = 0; left < 8; left += kLeftOfTwo) {
        MultiplyBlock<kValues, kLeftOfTwo, 2>(d, {from + left * (kValues ? 1 : a.stride), a.stride}, b + lane, lanes,
                                              depth, own, to + left * lanes);
      }
      lane += 2 * width;
    }
  }
}

// ---- Softmax ---------------------------------------------------------------------------------------------------

/// One vector of rows in a block of scores.
struct Column {
  float* scores;  // scores of the first key; those of a row lie `lanes` apart
  size_t lanes;
  int64_t begin;  // keys [begin, end) of the block
  int64_t end;
};

/// The biases of one key for a vector of rows, whose query heads take turns.
template <class D>
class KeyBiases {
 public:
  KeyBiases(const AttentionCall& call, const RowGroup& rows, int64_t lane) : one_head_(call.group() == 1) {
    for (size_t i = 0; i < hn::Lanes(D()); ++i) {
      const int64_t row = std::min(rows.begin + lane + static_cast<int64_t>(i), rows.end - 1);
      const int64_t head = rows.kv_head * call.group() + row % call.group();
      heads_[i] = call.options.key_bias.As<float>() + head * call.options.key_bias.row_stride();
    }
  }
  HWY_INLINE hn::Vec<D> Of(int64_t key) const {
    const D d;
    if (one_head_) return hn::Set(d, heads_[0][key]);
    HWY_ALIGN float biases[HWY_MAX_BYTES / sizeof(float)];
    for (size_t i = 0; i < hn::Lanes(d); ++i) biases[i] = heads_[i][key];
    return hn::Load(d, biases);
  }

 private:
  bool one_head_;
  const float* heads_[HWY_MAX_BYTES / sizeof(float)];
};

/// Caps scores, adds the keys' biases and hides what rows do not see.
template <class D>
HWY_INLINE void ShapeScores(D d, const AttentionCall& call, const RowGroup& rows, const SeenKeys& keys, int64_t block,
                            int64_t lane, const Column& column) {
  const hn::RebindToSigned<D> di;
  const float softcap = call.options.softcap;
  if (softcap > 0) {
    for (int64_t key = column.begin; key < column.end; ++key) {
      float* at = column.scores + static_cast<size_t>(key) * column.lanes;
      hn::StoreU(hn::Mul(hn::Set(d, softcap * kLog2E), Tanh(d, hn::LoadU(d, at))), d, at);
    }
  }
  if (call.options.key_bias.data() != nullptr) {
    const KeyBiases<D> biases(call, rows, lane);
    const int64_t base = block * kKeyBlock;
    for (int64_t key = column.begin; key < std::min(column.end, call.keys() - base); ++key) {
      float* at = column.scores + static_cast<size_t>(key) * column.lanes;
      hn::StoreU(hn::MulAdd(biases.Of(base + key), hn::Set(d, kLog2E), hn::LoadU(d, at)), d, at);
    }
  }
  if (keys.by_all) return;
  const auto first = hn::LoadU(di, keys.first + lane);
  const auto last = hn::LoadU(di, keys.last + lane);
  for (int64_t key = column.begin; key < column.end; ++key) {
    float* at = column.scores + static_cast<size_t>(key) * column.lanes;
    const auto own = hn::Set(di, static_cast<int32_t>(key));
    const auto unseen = hn::RebindMask(d, hn::Or(hn::Lt(own, first), hn::Gt(own, last)));
    const auto hidden = hn::Set(d, -std::numeric_limits<float>::infinity());
    hn::StoreU(hn::IfThenElse(unseen, hidden, hn::LoadU(d, at)), d, at);
  }
}

/// Turns scores into weights; updates the rows' maximum and sum and states the factor of what was summed before.
template <class D>
HWY_INLINE void Soften(D d, const Column& column, float* maximum, float* sum, float* factor) {
  const auto before = hn::LoadU(d, maximum);
  auto top = before;
  for (int64_t key = column.begin; key < column.end; ++key) {
    top = hn::Max(top, hn::LoadU(d, column.scores + static_cast<size_t>(key) * column.lanes));
  }
  const auto scale = Exp2(d, hn::Sub(before, top));
  hn::Vec<D> sums[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  for (int64_t key = column.begin; key < column.end; key += 4) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < 4; ++i) {
      float* at = column.scores + static_cast<size_t>(key + i) * column.lanes;
      const auto weight = Exp2(d, hn::Sub(hn::LoadU(d, at), top));
      hn::StoreU(weight, d, at);
      sums[i] = hn::Add(sums[i], weight);
    }
  }
  const auto total = hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]));
  hn::StoreU(top, d, maximum);
  hn::StoreU(hn::MulAdd(hn::LoadU(d, sum), scale, total), d, sum);
  hn::StoreU(scale, d, factor);
}

// ---- A block of keys -------------------------------------------------------------------------------------------

template <class D>
HWY_INLINE void AttendLanes(D d, const AttentionCall& call, const RowGroup& rows, const float* queries, int64_t block,
                            const float* panel, const Attended& seen, float* scores) {
  const SeenKeys keys(call, rows, block);
  if (keys.begin >= keys.end) return;
  const HeadSize size = call.size();
  const auto features = static_cast<size_t>(size.summed(1));
  const auto width = static_cast<size_t>(ValueWidth(size.value));
  const auto lanes = static_cast<size_t>(rows.lanes);
  const auto begin = static_cast<size_t>(keys.begin);
  const auto count = static_cast<size_t>(keys.end - keys.begin);
  const float* values = panel + static_cast<size_t>(kKeyBlock) * features;
  float* weights = scores + begin * lanes;
  float* factors = scores + kKeyBlock * kGroupRows;
  Multiply<false>(d, {panel + begin * features, features}, count, queries, lanes, features, nullptr, weights,
                  RowsAhead(call, call.cache.k, rows.kv_head, block + 1));
  const bool plain = keys.by_all && call.options.softcap == 0 && call.options.key_bias.data() == nullptr;
  for (int64_t lane = 0; lane < rows.lanes; lane += static_cast<int64_t>(hn::Lanes(d))) {
    const Column column{scores + lane, lanes, keys.begin, keys.end};
    if (!plain) ShapeScores(d, call, rows, keys, block, lane, column);
    Soften(d, column, seen.maxima + lane, seen.sums + lane, factors + lane);
  }
  Multiply<true>(d, {values + begin * width, width}, width, weights, lanes, count, factors, seen.output,
                 RowsAhead(call, call.cache.v, rows.kv_head, block + 1));
}

void AttendSimd(const AttentionCall& call, const RowGroup& rows, const std::byte* queries, int64_t block,
                const std::byte* panel, const Attended& seen, std::byte* workspace) {
  const auto* q = reinterpret_cast<const float*>(queries);
  const auto* kv = reinterpret_cast<const float*>(panel + sizeof(PanelHeader));
  auto* scores = reinterpret_cast<float*>(workspace);
  if (rows.lanes == 8) return AttendLanes(hn::CappedTag<float, 8>(), call, rows, q, block, kv, seen, scores);
  AttendLanes(FloatTag(), call, rows, q, block, kv, seen, scores);
}

// ---- Packing ---------------------------------------------------------------------------------------------------

void PackSimd(const AttentionCall& call, int64_t kv_head, int64_t block, std::byte* panel) {
  const FloatTag d;
  const HeadSize size = call.size();
  const int64_t features = size.summed(1);
  const int64_t latent = size.latent ? size.value : 0;
  const int64_t width = ValueWidth(size.value);
  const int64_t base = block * kKeyBlock;
  const int64_t first = std::clamp<int64_t>(call.first_key() - base, 0, kKeyBlock);
  const int64_t last = std::clamp<int64_t>(call.keys() - base, 0, kKeyBlock);
  auto* keys = reinterpret_cast<float*>(panel + sizeof(PanelHeader));
  float* values = keys + kKeyBlock * features;
  if (first > 0 || last < kKeyBlock || width != size.value) {
    const int64_t worked_on = (last + kKeyStep - 1) / kKeyStep * kKeyStep;
    std::memset(keys, 0, static_cast<size_t>(worked_on * features) * sizeof(float));
    std::memset(values, 0, static_cast<size_t>(worked_on * width) * sizeof(float));
  }
  bool all_finite = true;
  Dispatch(call.cache.k.dtype(), [&](auto zero) HWY_ATTR {
    using T = decltype(zero);
    auto not_finite = hn::Zero(d);
    const T* const block_keys = call.BlockOf<T>(call.cache.k, kv_head, block);
    const T* const block_values = call.BlockOf<T>(call.cache.v, kv_head, block);
    for (int64_t j = first; j < last; ++j) {
      const T* k = block_keys + j * call.cache.k.row_stride();
      const T* v = block_values + j * call.cache.v.row_stride();
      float* key = keys + j * features;
      ForVectors(d, static_cast<size_t>(latent), [&](auto load, auto store) HWY_ATTR { store(load(v), key); });
      float* behind = key + latent;
      ForVectors(d, static_cast<size_t>(size.key), [&](auto load, auto store) HWY_ATTR { store(load(k), behind); });
      ForVectors(d, static_cast<size_t>(size.value), [&](auto load, auto store) HWY_ATTR {
        const auto value = load(v);
        const auto finite = hn::Le(hn::Abs(value), hn::Set(d, std::numeric_limits<float>::max()));
        not_finite = hn::IfThenElse(finite, not_finite, hn::Set(d, 1.0f));
        store(hn::IfThenElseZero(finite, value), values + j * width);
      });
    }
    all_finite = hn::AllTrue(d, hn::Eq(not_finite, hn::Zero(d)));
  });
  reinterpret_cast<PanelHeader*>(panel)->all_finite = all_finite;
}

/// Queries: [summed features, lanes]. Scores come out in units of log2 e, or as the argument of the soft cap's tanh.
void PackQueriesSimd(const AttentionCall& call, const RowGroup& rows, std::byte* memory) {
  const AttentionOptions& options = call.options;
  const float scale = options.softcap > 0 ? options.scale / options.softcap : options.scale * kLog2E;
  auto* queries = reinterpret_cast<float*>(memory);
  const HeadSize size = call.size();
  std::fill_n(queries, size.summed(1) * rows.lanes, 0.0f);
  const auto pack = [&](const TensorView& view, int64_t features, float* to) {
    Dispatch(view.dtype(), [&](auto zero) HWY_ATTR {
      using T = decltype(zero);
      for (int64_t lane = 0; lane < rows.rows(); ++lane) {
        const T* q = view.As<T>() + call.Offset(view, rows.kv_head, rows.begin + lane);
        for (int64_t i = 0; i < features; ++i) to[i * rows.lanes + lane] = scale * static_cast<float>(q[i]);
      }
    });
  };
  if (!size.latent) return pack(call.q, size.key, queries);
  pack(call.q, size.value, queries);
  pack(options.rotated, size.key, queries + size.value * rows.lanes);
}

// ---- What blocks have in common --------------------------------------------------------------------------------

template <class D>
HWY_INLINE void JoinLanes(D d, const RowGroup& rows, int64_t features, const Attended& part, const Attended& whole) {
  const auto lanes = static_cast<size_t>(rows.lanes);
  for (size_t lane = 0; lane < lanes; lane += hn::Lanes(d)) {
    const auto top = hn::Max(hn::LoadU(d, whole.maxima + lane), hn::LoadU(d, part.maxima + lane));
    const auto kept = Exp2(d, hn::Sub(hn::LoadU(d, whole.maxima + lane), top));
    const auto added = Exp2(d, hn::Sub(hn::LoadU(d, part.maxima + lane), top));
    const auto join = [&](const float* from, float* to) HWY_ATTR {
      hn::StoreU(hn::MulAdd(hn::LoadU(d, to), kept, hn::Mul(hn::LoadU(d, from), added)), d, to);
    };
    hn::StoreU(top, d, whole.maxima + lane);
    join(part.sums + lane, whole.sums + lane);
    const auto width = static_cast<size_t>(ValueWidth(features));
    for (size_t i = 0; i < width; ++i) join(part.output + i * lanes + lane, whole.output + i * lanes + lane);
  }
}

void JoinSimd(const RowGroup& rows, int64_t features, const Attended& part, const Attended& whole) {
  if (rows.lanes == 8) return JoinLanes(hn::CappedTag<float, 8>(), rows, features, part, whole);
  JoinLanes(FloatTag(), rows, features, part, whole);
}

/// Four features of all lanes, over the rows' sums, become [lanes, 4]. Adding 0 makes one zero of both: the sign of a
/// sum of nothing depends on what was not seen.
template <class D>
HWY_INLINE void TurnFour(D d, const float* sums, size_t lanes, float* features) {
  HWY_ALIGN float turned[4 * kGroupRows];
  for (size_t lane = 0; lane < lanes; lane += hn::Lanes(d)) {
    const auto inverse = hn::Div(hn::Set(d, 1.0f), hn::LoadU(d, sums + lane));
    hn::Vec<D> four[4];
    for (size_t i = 0; i < 4; ++i) {
      four[i] = hn::MulAdd(hn::LoadU(d, features + i * lanes + lane), inverse, hn::Zero(d));
    }
    hn::StoreInterleaved4(four[0], four[1], four[2], four[3], d, turned + 4 * lane);
  }
  std::memcpy(features, turned, 4 * lanes * sizeof(float));
}

/// Adds the weights of positions that only take some.
void AddSinks(const AttentionCall& call, const RowGroup& rows, const Attended& whole) {
  for (int64_t lane = 0; lane < rows.rows(); ++lane) {
    const int64_t head = rows.kv_head * call.group() + (rows.begin + lane) % call.group();
    whole.sums[lane] += std::exp2(call.options.sinks.As<float>()[head] * kLog2E - whole.maxima[lane]);
  }
}

void FinishSimd(const AttentionCall& call, const RowGroup& rows, const Attended& whole) {
  const FloatTag d;
  const int64_t features = call.size().value;
  const auto lanes = static_cast<size_t>(rows.lanes);
  if (call.options.sinks.data() != nullptr) AddSinks(call, rows, whole);
  for (int64_t i = 0; i < features; i += 4) {
    float* four = whole.output + i * rows.lanes;
    if (lanes == 8) {
      TurnFour(hn::CappedTag<float, 8>(), whole.sums, lanes, four);
    } else {
      TurnFour(d, whole.sums, lanes, four);
    }
  }
  constexpr int64_t kAtOnce = 256;
  HWY_ALIGN float row[kAtOnce];
  Dispatch(call.out.dtype(), [&](auto zero) HWY_ATTR {
    using T = decltype(zero);
    for (int64_t lane = 0; lane < rows.rows(); ++lane) {
      T* out = call.out.As<T>() + call.Offset(call.out, rows.kv_head, rows.begin + lane);
      for (int64_t first = 0; first < features; first += kAtOnce) {
        const int64_t n = std::min<int64_t>(kAtOnce, features - first);
        for (int64_t i = 0; i < n; i += 4) {
          std::memcpy(row + i, whole.output + (first + i) * rows.lanes + 4 * lane, 4 * sizeof(float));
        }
        const float* from = row;
        T* to = out + first;
        ForVectors(d, static_cast<size_t>(n), [&](auto load, auto store) HWY_ATTR { store(load(from), to); });
      }
    }
  });
}

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace runahead::cpu {
HWY_EXPORT(AttendSimd);
HWY_EXPORT(PackSimd);
HWY_EXPORT(PackQueriesSimd);
HWY_EXPORT(JoinSimd);
HWY_EXPORT(FinishSimd);

void JoinAttended(const RowGroup& rows, int64_t features, const Attended& part, const Attended& whole) {
  HWY_DYNAMIC_DISPATCH(JoinSimd)(rows, features, part, whole);
}

void FinishAttended(const AttentionCall& call, const RowGroup& rows, const Attended& whole) {
  HWY_DYNAMIC_DISPATCH(FinishSimd)(call, rows, whole);
}

AttentionKernel SimdAttention() {
  return {nullptr, nullptr, 8,
          [](const HeadSize& size) {
            return sizeof(PanelHeader) + static_cast<size_t>(PanelFloats(size)) * sizeof(float);
          },
          [](const HeadSize& size) { return static_cast<size_t>(size.summed(1) * kGroupRows) * sizeof(float); },
          // Scores [kKeyBlock, lanes], then factors [lanes].
          [] { return static_cast<size_t>((kKeyBlock + 1) * kGroupRows) * sizeof(float); },
          [](const AttentionCall& call, int64_t kv_head, int64_t block, std::byte* panel) {
            HWY_DYNAMIC_DISPATCH(PackSimd)(call, kv_head, block, panel);
          },
          [](const AttentionCall& call, const RowGroup& rows, std::byte* queries) {
            HWY_DYNAMIC_DISPATCH(PackQueriesSimd)(call, rows, queries);
          },
          [](const AttentionCall& call, const RowGroup& rows, const std::byte* queries, int64_t block,
             const std::byte* panel, const Attended& seen, std::byte* workspace) {
            HWY_DYNAMIC_DISPATCH(AttendSimd)(call, rows, queries, block, panel, seen, workspace);
          }};
}

}  // namespace runahead::cpu
#endif  // HWY_ONCE
