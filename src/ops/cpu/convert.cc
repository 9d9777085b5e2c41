#include "ops/cpu/convert.h"

#include <cstdint>
#include <cstring>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/convert.cc"
#include <hwy/foreach_target.h>

#include "ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace runahead::cpu::HWY_NAMESPACE {

/// Rows [begin, end).
void ConvertRange(const TensorView& from, const TensorView& to, int64_t begin, int64_t end) {
  const FloatTag d;
  const auto n = static_cast<size_t>(from.row_elements());
  Dispatch(from.dtype(), [&](auto from_zero) HWY_ATTR {
    Dispatch(to.dtype(), [&](auto to_zero) HWY_ATTR {
      using From = decltype(from_zero);
      using To = decltype(to_zero);
      for (int64_t i = begin; i < end; ++i) {
        const From* source = from.As<From>() + i * from.row_stride();
        To* target = to.As<To>() + i * to.row_stride();
        ForVectors(d, n, [&](auto load, auto store) HWY_ATTR { store(load(source), target); });
      }
    });
  });
}

/// Whole squares of elements as wide as a vector of 16 bytes, without looking at what they mean: to[i][j] =
/// from[j][i] for i < rows, j < columns. The remainder element by element.
template <typename Bits>
void TransposeBits(const Bits* from, int64_t from_stride, Bits* to, int64_t to_stride, int64_t rows,
                   int64_t columns) {
  int64_t whole_rows = 0;
  int64_t whole_columns = 0;
#if HWY_TARGET != HWY_SCALAR
  constexpr int64_t kSide = 16 / sizeof(Bits);
  const hn::FixedTag<Bits, kSide> d;
  whole_rows = rows / kSide * kSide;
  whole_columns = columns / kSide * kSide;
  for (int64_t j = 0; j < whole_columns; j += kSide) {
    for (int64_t i = 0; i < whole_rows; i += kSide) {
      hn::Vec<decltype(d)> lines[kSide];
      hn::Vec<decltype(d)> next[kSide];
      for (int64_t k = 0; k < kSide; ++k) lines[k] = hn::LoadU(d, from + (j + k) * from_stride + i);
      for (int64_t round = 1; round < kSide; round *= 2) {  // each halves the distance of what belongs together
        for (int64_t k = 0; k < kSide / 2; ++k) {
          next[2 * k] = hn::InterleaveLower(d, lines[k], lines[k + kSide / 2]);
          next[2 * k + 1] = hn::InterleaveUpper(d, lines[k], lines[k + kSide / 2]);
        }
        for (int64_t k = 0; k < kSide; ++k) lines[k] = next[k];
      }
      for (int64_t k = 0; k < kSide; ++k) hn::StoreU(lines[k], d, to + (i + k) * to_stride + j);
    }
  }
#endif
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j)
      to[i * to_stride + j] = from[j * from_stride + i];
  }
}

/// Rows [begin, end) of `from` become columns, by way of tiles that the first cache holds.
void TransposeRange(const TensorView& from, const float* bias, const TensorView& to, int64_t begin, int64_t end) {
  constexpr int64_t kTile = 64;
  float tile[kTile];
  const int64_t n = to.rows();
  Dispatch(from.dtype(), [&](auto from_zero) HWY_ATTR {
    Dispatch(to.dtype(), [&](auto to_zero) HWY_ATTR {
      using From = decltype(from_zero);
      using To = decltype(to_zero);
      for (int64_t j = begin; j < end; j += kTile) {
        const int64_t columns = HWY_MIN(kTile, end - j);
        const From* source = from.As<From>() + j * n;
        To* target = to.As<To>() + j;
        if (std::is_same_v<From, To> && bias == nullptr) {
          using Bits = std::conditional_t<sizeof(From) == 4, uint32_t, uint16_t>;
          TransposeBits(reinterpret_cast<const Bits*>(source), n, reinterpret_cast<Bits*>(target), to.row_stride(), n,
                        columns);
          continue;
        }
        for (int64_t i = 0; i < n; ++i) {
          for (int64_t k = 0; k < columns; ++k) {
            tile[k] = static_cast<float>(source[k * n + i]) + (bias != nullptr ? bias[j + k] : 0.0f);
          }
          ForVectors(FloatTag(), static_cast<size_t>(columns),
                     [&](auto load, auto store) HWY_ATTR { store(load(&tile[0]), target + i * to.row_stride()); });
        }
      }
    });
  });
}

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace runahead::cpu {
HWY_EXPORT(ConvertRange);
HWY_EXPORT(TransposeRange);

namespace {
void CopyRange(const TensorView& from, const TensorView& to, int64_t begin, int64_t end) {
  const size_t bytes = static_cast<size_t>(from.row_elements()) * SizeOf(from.dtype());
  for (int64_t i = begin; i < end; ++i) std::memcpy(to.Rows(i, i + 1).data(), from.Rows(i, i + 1).data(), bytes);
}
}  // namespace

void ConvertRows(const Team& team, TensorView from, TensorView to) {
  CHECK_EQ(from.rows(), to.rows());
  CHECK_EQ(from.row_elements(), to.row_elements());
  constexpr int64_t kWorthAThread = 16384;  // elements
  const int64_t grain = 1 + kWorthAThread / (from.row_elements() + 1);
  team.RunRanges(from.rows(), grain, [&](int64_t begin, int64_t end) {
    if (from.dtype() == to.dtype()) {
      CopyRange(from, to, begin, end);
    } else {
      HWY_DYNAMIC_DISPATCH(ConvertRange)(from, to, begin, end);
    }
  });
}

void TransposeRows(const Team& team, TensorView from, const float* bias, TensorView to) {
  CHECK_EQ(from.rows(), to.row_elements());
  CHECK_EQ(from.row_elements(), to.rows());
  CHECK(from.contiguous());
  constexpr int64_t kWorthAThread = 16384;  // elements
  const int64_t grain = 1 + kWorthAThread / (to.rows() + 1);
  team.RunRanges(from.rows(), grain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(TransposeRange)(from, bias, to, begin, end);
  });
}

}  // namespace runahead::cpu
#endif  // HWY_ONCE
