#include "ops/cpu/few_rows.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/few_rows.cc"
#include <hwy/foreach_target.h>

#include "ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace runahead::cpu::HWY_NAMESPACE {

/// One column. Reads the weights once, in order.
template <size_t kRows>
HWY_INLINE void MultiplyColumn(FloatTag d, const float* HWY_RESTRICT x, size_t in_features,
                               const float* HWY_RESTRICT weights, float* HWY_RESTRICT sums) {
  constexpr auto kFeatures = static_cast<size_t>(kColumnFeatures);
  constexpr size_t kVectors = HWY_MAX_BYTES >= 64 ? 4 : 2;  // sums that fit the registers
  const size_t lanes = hn::Lanes(d);
  for (size_t j = 0; j < kFeatures; j += kVectors * lanes) {
    FloatVec sum[kRows][kVectors];
#pragma GCC unroll 4
    for (size_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
      for (size_t v = 0; v < kVectors; ++v) sum[i][v] = hn::Zero(d);
    }
    for (size_t k = 0; k < in_features; ++k) {
#pragma GCC unroll 4
      for (size_t v = 0; v < kVectors; ++v) {
        const auto weight = hn::LoadU(d, weights + k * kFeatures + j + v * lanes);
#pragma GCC unroll 4
        for (size_t i = 0; i < kRows; ++i) {
          sum[i][v] = hn::MulAdd(hn::Set(d, x[i * in_features + k]), weight, sum[i][v]);
        }
      }
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
      for (size_t v = 0; v < kVectors; ++v) hn::StoreU(sum[i][v], d, sums + i * kFeatures + j + v * lanes);
    }
  }
}

void MultiplyColumns(const FewRowsProduct& product, int64_t begin, int64_t end) {
  const FloatTag d;
  const auto in_features = static_cast<size_t>(product.in_features);
  const int64_t column_floats = (product.in_features + 15) / 16 * 16 * kColumnFeatures;
  const auto* x = static_cast<const float*>(product.x);
  auto* y = static_cast<float*>(product.y);
  HWY_ALIGN float sums[kFewRows * kColumnFeatures];
  for (int64_t column = begin; column < end; ++column) {
    const float* weights = static_cast<const float*>(product.weights) + column * column_floats;
    switch (product.rows) {
      case 1:
        MultiplyColumn<1>(d, x, in_features, weights, sums);
        break;
      case 2:
        MultiplyColumn<2>(d, x, in_features, weights, sums);
        break;
      case 3:
        MultiplyColumn<3>(d, x, in_features, weights, sums);
        break;
      default:
        MultiplyColumn<4>(d, x, in_features, weights, sums);
    }
    const int64_t first = column * kColumnFeatures;
    const int64_t n = std::min(kColumnFeatures, product.out_features - first);
    for (int64_t i = 0; i < product.rows; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        const float bias = product.bias != nullptr ? product.bias[first + j] : 0.0f;
        y[i * product.out_features + first + j] = sums[i * kColumnFeatures + j] + bias;
      }
    }
  }
}

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace runahead::cpu {
HWY_EXPORT(MultiplyColumns);

void MultiplyFewRows(const Team& team, const FewRowsProduct& product) {
  CHECK(0 < product.rows && product.rows <= kFewRows);
  constexpr int64_t kWorthAThread = int64_t{1} << 17;  // weights
  const int64_t columns = (product.out_features + kColumnFeatures - 1) / kColumnFeatures;
  team.RunRanges(columns, 1 + kWorthAThread / (kColumnFeatures * product.in_features),
                 [&](int64_t begin, int64_t end) {
                   if (product.arithmetic == DType::kBF16) {
                     MultiplyFewRowsBf16(product, begin, end);
                   } else {
                     HWY_DYNAMIC_DISPATCH(MultiplyColumns)(product, begin, end);
                   }
                 });
}

}  // namespace runahead::cpu
#endif  // HWY_ONCE
