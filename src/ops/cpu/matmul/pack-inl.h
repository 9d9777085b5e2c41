// Rows of numbers as vectors across the rows, for packing and for kernels that pack in registers. Compiled once per
// target.
#if defined(RUNAHEAD_OPS_CPU_MATMUL_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RUNAHEAD_OPS_CPU_MATMUL_PACK_INL_H_
#undef RUNAHEAD_OPS_CPU_MATMUL_PACK_INL_H_
#else
#define RUNAHEAD_OPS_CPU_MATMUL_PACK_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace runahead::cpu::HWY_NAMESPACE {

constexpr auto kLanes = static_cast<int64_t>(hn::MaxLanes(FloatTag()));

/// Units of f32 arithmetic: elements of type T.
template <typename T>
struct Elements {
  static constexpr int64_t kPerUnit = 1;
  static float LoadOne(const std::byte* row, int64_t unit, int64_t depth) {
    return unit < depth ? static_cast<float>(reinterpret_cast<const T*>(row)[unit]) : 0.0f;
  }
  static HWY_INLINE FloatVec Load(FloatTag d, const std::byte* row, int64_t unit) {
    return LoadFloats(d, reinterpret_cast<const T*>(row) + unit);
  }
#if HWY_TARGET != HWY_SCALAR
  static HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> LoadFour(const std::byte* row, int64_t unit) {
    const hn::FixedTag<float, 4> d;
    const T* from = reinterpret_cast<const T*>(row) + unit;
    if constexpr (std::is_same_v<T, float>) {
      return hn::LoadU(d, from);
    } else if constexpr (std::is_same_v<T, BFloat16>) {
      const hn::FixedTag<uint16_t, 4> d16;
      const hn::FixedTag<uint32_t, 4> d32;
      const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from)));
      return hn::BitCast(d, hn::ShiftLeft<16>(bits));
    } else {
      const hn::FixedTag<hwy::float16_t, 4> d16;
      return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(from)));
    }
  }
#endif
};

/// Units of bf16 arithmetic, moved as if they were f32.
struct Pairs {
  static constexpr int64_t kPerUnit = 2;
  static float LoadOne(const std::byte* row, int64_t unit, int64_t depth) {
    const int64_t left = std::clamp<int64_t>(depth - 2 * unit, 0, 2);
    float pair = 0;
    std::memcpy(&pair, row + 4 * unit, static_cast<size_t>(2 * left));
    return pair;
  }
  static HWY_INLINE FloatVec Load(FloatTag d, const std::byte* row, int64_t unit) {
    return hn::LoadU(d, reinterpret_cast<const float*>(row) + unit);
  }
#if HWY_TARGET != HWY_SCALAR
  static HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> LoadFour(const std::byte* row, int64_t unit) {
    return hn::LoadU(hn::FixedTag<float, 4>(), reinterpret_cast<const float*>(row) + unit);
  }
#endif
};

#if HWY_TARGET != HWY_SCALAR
/// Units [unit, unit + 4) of the rows that row(0), row(4), ... begin: 128 bits of each.
template <typename Source, typename Row>
HWY_INLINE FloatVec LoadBlocks(FloatTag d, const Row& row, int64_t unit) {
  if constexpr (kLanes == 4) {
    return Source::LoadFour(row(0), unit);
  } else if constexpr (kLanes == 8) {
    return hn::Combine(d, Source::LoadFour(row(4), unit), Source::LoadFour(row(0), unit));
  } else {
    const hn::Half<FloatTag> half;
    return hn::Combine(d, hn::Combine(half, Source::LoadFour(row(12), unit), Source::LoadFour(row(8), unit)),
                       hn::Combine(half, Source::LoadFour(row(4), unit), Source::LoadFour(row(0), unit)));
  }
}

/// units[i][j] = unit `unit` + i of row(j), for i < 4 and as many rows as a vector has lanes.
template <typename Source, typename Row>
HWY_INLINE void LoadUnits(FloatTag d, const Row& row, int64_t unit, FloatVec (&units)[4]) {
  const hn::Repartition<uint64_t, FloatTag> d64;
  const auto row0 = LoadBlocks<Source>(d, row, unit);
  const auto row1 = LoadBlocks<Source>(
      d, [&](int i) HWY_ATTR { return row(i + 1); }, unit);
  const auto row2 = LoadBlocks<Source>(
      d, [&](int i) HWY_ATTR { return row(i + 2); }, unit);
  const auto row3 = LoadBlocks<Source>(
      d, [&](int i) HWY_ATTR { return row(i + 3); }, unit);
  const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, row0, row1));
  const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, row0, row1));
  const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, row2, row3));
  const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, row2, row3));
  units[0] = hn::BitCast(d, hn::InterleaveLower(d64, low01, low23));
  units[1] = hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23));
  units[2] = hn::BitCast(d, hn::InterleaveLower(d64, high01, high23));
  units[3] = hn::BitCast(d, hn::InterleaveUpper(d64, high01, high23));
}
#endif

#if HWY_TARGET != HWY_SCALAR
/// rows[i][j] becomes rows[j][i].
HWY_INLINE void Transpose(FloatTag d, FloatVec (&rows)[kLanes]) {
  const hn::Repartition<uint64_t, FloatTag> d64;
#pragma GCC unroll 4
  for (int64_t i = 0; i < kLanes; i += 4) {  // squares of four, within blocks of 128 bits
    const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, rows[i], rows[i + 1]));
    const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, rows[i], rows[i + 1]));
    const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, rows[i + 2], rows[i + 3]));
    const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, rows[i + 2], rows[i + 3]));
    rows[i] = hn::BitCast(d, hn::InterleaveLower(d64, low01, low23));
    rows[i + 1] = hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23));
    rows[i + 2] = hn::BitCast(d, hn::InterleaveLower(d64, high01, high23));
    rows[i + 3] = hn::BitCast(d, hn::InterleaveUpper(d64, high01, high23));
  }
#if HWY_MAX_BYTES >= 32
  if constexpr (kLanes >= 8) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < kLanes; ++i) {  // the blocks: pairs of neighbours
      if (i % 8 >= 4) continue;
      const auto first = rows[i];
      rows[i] = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(rows[i + 4]), first);
      rows[i + 4] = hn::OddEvenBlocks(rows[i + 4], hn::SwapAdjacentBlocks(first));
    }
  }
#endif
#if HWY_MAX_BYTES >= 64
  if constexpr (kLanes == 16) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < 8; ++i) {  // halves
      const auto first = rows[i];
      rows[i] = hn::ConcatLowerLower(d, rows[i + 8], first);
      rows[i + 8] = hn::ConcatUpperUpper(d, rows[i + 8], first);
    }
  }
#endif
}
#endif

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
