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

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace runahead::cpu {
HWY_EXPORT(ConvertRange);

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

}  // namespace runahead::cpu
#endif  // HWY_ONCE
