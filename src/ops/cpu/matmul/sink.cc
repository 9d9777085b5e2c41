// What becomes of a product's sums on their way to memory: bias, rounding, the residual.
#include "ops/cpu/matmul/kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/matmul/sink.cc"
#include <hwy/foreach_target.h>

#include "ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace runahead::cpu::HWY_NAMESPACE {

void StoreRange(const Sink& sink, const float* sums, int64_t stride, int64_t row, int64_t rows, int64_t feature,
                int64_t features) {
  const FloatTag d;
  const auto n = static_cast<size_t>(features);
  const float* bias = sink.bias != nullptr ? sink.bias + feature : nullptr;
  const auto plus_bias = [&](auto load)
                             HWY_ATTR { return bias != nullptr ? hn::Add(load(sums), load(bias)) : load(sums); };
  Dispatch(sink.y.dtype(), [&](auto zero) HWY_ATTR {
    using T = decltype(zero);
    T* y = sink.y.As<T>() + (row - sink.first_row) * sink.y.row_stride() + feature - sink.first_feature;
    HWY_ALIGN T rounded[HWY_MAX_BYTES / sizeof(float)];
    for (int64_t i = 0; i < rows; ++i) {
      ForVectors(d, n, [&](auto load, auto store) HWY_ATTR {
        auto sum = plus_bias(load);
        if (sink.add) {
          StoreFloats(d, sum, &rounded[0]);
          sum = hn::Add(load(static_cast<const T*>(y)), LoadFloats(d, &rounded[0]));
        }
        store(sum, y);
      });
      sums += stride;
      y += sink.y.row_stride();
    }
  });
}

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace runahead::cpu {
HWY_EXPORT(StoreRange);

void Store(const Sink& sink, const float* sums, int64_t stride, int64_t row, int64_t rows, int64_t feature,
           int64_t features) {
  HWY_DYNAMIC_DISPATCH(StoreRange)(sink, sums, stride, row, rows, feature, features);
}

}  // namespace runahead::cpu
#endif  // HWY_ONCE
