#include "ops/cpu/matmul/pack.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/matmul/pack.cc"
#include <hwy/foreach_target.h>

#include "ops/cpu/matmul/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace runahead::cpu::HWY_NAMESPACE {

/// Bytes of a row that are asked for before they are read.
constexpr int64_t kAhead = 512;

template <typename Source>
void PackOf(const PackSource& from, int64_t begin, int64_t end, int64_t width, float* to) {
  const std::byte* rows[kLanes];
  const int64_t row_bytes = from.stride * static_cast<int64_t>(SizeOf(from.dtype));
  [[maybe_unused]] const int64_t whole = std::min(end, from.depth / Source::kPerUnit);
  for (int64_t group = 0; group < width; group += kLanes) {
    for (int64_t i = 0; i < kLanes; ++i) rows[i] = from.data + std::min(group + i, from.rows - 1) * row_bytes;
    int64_t unit = begin;
#if HWY_TARGET != HWY_SCALAR
    // A vector wider than the slice runs into units that are written after it.
    if (width % kLanes == 0 || width < kLanes) {
      const FloatTag d;
      const int64_t floats = (end - begin) * width;
      // A square at a time, so that a line of a row is read once: rows that lie a power of two apart share few ways
      // of the first cache.
      while (unit + kLanes <= whole && (unit + kLanes - 1 - begin) * width + group + kLanes <= floats) {
        FloatVec units[kLanes];
#pragma GCC unroll 16
        for (int64_t i = 0; i < kLanes; ++i) {
          units[i] = Source::Load(d, rows[i], unit);
          __builtin_prefetch(rows[i] + unit * 4 + kAhead, 0, 2);  // the second cache: in the first they would meet
        }
        Transpose(d, units);
        for (const FloatVec& vector : units) {
          hn::StoreU(vector, d, to + (unit - begin) * width + group);
          ++unit;
        }
      }
      while (unit + 4 <= whole && (unit + 3 - begin) * width + group + kLanes <= floats) {
        FloatVec units[4];
        LoadUnits<Source>(
            d, [&](int i) HWY_ATTR { return rows[i]; }, unit, units);
        for (const FloatVec& vector : units) {
          hn::StoreU(vector, d, to + (unit - begin) * width + group);
          ++unit;
        }
      }
    }
#endif
    const int64_t columns = std::min(kLanes, width - group);
    for (; unit < end; ++unit) {
      for (int64_t i = 0; i < columns; ++i) {
        to[(unit - begin) * width + group + i] = Source::LoadOne(rows[i], unit, from.depth);
      }
    }
  }
}

/// One row, which needs no transposing.
template <typename T>
void PackOneRow(const PackSource& from, int64_t begin, int64_t end, float* to) {
  const T* row = reinterpret_cast<const T*>(from.data) + begin;
  const int64_t whole = std::clamp<int64_t>(from.depth - begin, 0, end - begin);
  ForVectors(FloatTag(), static_cast<size_t>(whole), [&](auto load, auto store) HWY_ATTR { store(load(row), to); });
  std::fill(to + whole, to + (end - begin), 0.0f);
}

void PackRange(const PackSource& from, DType arithmetic, int64_t begin, int64_t end, int64_t width, float* to) {
  if (arithmetic == DType::kBF16) return PackOf<Pairs>(from, begin, end, width, to);
  Dispatch(from.dtype, [&](auto zero) HWY_ATTR {
    using T = decltype(zero);
    if (width == 1) return PackOneRow<T>(from, begin, end, to);
    PackOf<Elements<T>>(from, begin, end, width, to);
  });
}

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace runahead::cpu {
HWY_EXPORT(PackRange);

void Pack(const PackSource& from, DType arithmetic, int64_t begin, int64_t end, int64_t width, std::byte* to) {
  CHECK(arithmetic == DType::kF32 || from.dtype == DType::kBF16);
  CHECK_GT(from.rows, 0);
  if (arithmetic == DType::kBF16 && width == 1) {
    const int64_t bytes = std::clamp<int64_t>(2 * from.depth - 4 * begin, 0, 4 * (end - begin));
    std::memcpy(to, from.data + 4 * begin, static_cast<size_t>(bytes));
    std::memset(to + bytes, 0, static_cast<size_t>(4 * (end - begin) - bytes));
    return;
  }
  HWY_DYNAMIC_DISPATCH(PackRange)(from, arithmetic, begin, end, width, reinterpret_cast<float*>(to));
}

}  // namespace runahead::cpu
#endif  // HWY_ONCE
