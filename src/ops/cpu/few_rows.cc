#include "ops/cpu/few_rows.h"

#include <hwy/cache_control.h>

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
    SetZero(d, sum);
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

template <size_t kRows>
void MultiplyColumnsOf(const FewRowsProduct& product, int64_t begin, int64_t end) {
  const FloatTag d;
  const auto in_features = static_cast<size_t>(product.in_features);
  const int64_t column_floats = (product.in_features + 15) / 16 * 16 * kColumnFeatures;
  const auto* x = static_cast<const float*>(product.x);
  auto* y = static_cast<float*>(product.y);
  HWY_ALIGN float sums[kRows * kColumnFeatures];
  for (int64_t column = begin; column < end; ++column) {
    const float* weights = static_cast<const float*>(product.weights) + column * column_floats;
    MultiplyColumn<kRows>(d, x, in_features, weights, sums);
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

void MultiplyColumns(const FewRowsProduct& product, int64_t begin, int64_t end) {
  DispatchRows(product.rows, [&](auto rows) HWY_ATTR { MultiplyColumnsOf<rows>(product, begin, end); });
}

/// Dot products of all rows of x with one row of weights.
template <size_t kRows, typename T>
HWY_INLINE void MultiplyRow(FloatTag d, const T* HWY_RESTRICT x, size_t in_features, const T* HWY_RESTRICT weights,
                            float* HWY_RESTRICT sums) {
  constexpr size_t kVectors = 8 / kRows;  // sums of each row of x, enough to hide the latency of adding
  const size_t lanes = hn::Lanes(d);
  FloatVec sum[kRows][kVectors];
  SetZero(d, sum);
  constexpr size_t kAhead = 4096 / sizeof(T);  // as far as a page, where the processor's own prefetching stops
  size_t k = 0;
  for (; k + kVectors * lanes <= in_features; k += kVectors * lanes) {
#pragma GCC unroll 8
    for (size_t v = 0; v < kVectors; ++v) {
      hwy::Prefetch(weights + k + v * lanes + kAhead);
      const auto weight = LoadFloats(d, weights + k + v * lanes);
#pragma GCC unroll 4
      for (size_t i = 0; i < kRows; ++i) {
        sum[i][v] = hn::MulAdd(LoadFloats(d, x + i * in_features + k + v * lanes), weight, sum[i][v]);
      }
    }
  }
  for (; k < in_features; k += lanes) {
    const size_t n = HWY_MIN(lanes, in_features - k);
    const auto weight = LoadFloatsN(d, weights + k, n);
#pragma GCC unroll 4
    for (size_t i = 0; i < kRows; ++i) {
      sum[i][0] = hn::MulAdd(LoadFloatsN(d, x + i * in_features + k, n), weight, sum[i][0]);
    }
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (size_t v = 1; v < kVectors; ++v) sum[i][0] = hn::Add(sum[i][0], sum[i][v]);
    sums[i] = hn::GetLane(hn::SumOfLanes(d, sum[i][0]));
  }
}

template <size_t kRows, typename T>
void MultiplyRowsOf(const FewRowsProduct& product, int64_t begin, int64_t end) {
  const FloatTag d;
  const auto in_features = static_cast<size_t>(product.in_features);
  const auto* x = static_cast<const T*>(product.x);
  float sums[kRows];
  for (int64_t j = begin; j < end; ++j) {
    MultiplyRow<kRows>(d, x, in_features, static_cast<const T*>(product.weights) + j * product.in_features, sums);
    for (int64_t i = 0; i < product.rows; ++i) {
      const float value = sums[i] + (product.bias != nullptr ? product.bias[j] : 0.0f);
      if (product.result == DType::kF32) {
        static_cast<float*>(product.y)[i * product.out_features + j] = value;
      } else {
        static_cast<BFloat16*>(product.y)[i * product.out_features + j] = BFloat16(value);
      }
    }
  }
}

void MultiplyInPlace(const FewRowsProduct& product, int64_t begin, int64_t end) {
  DispatchRows(product.rows, [&](auto rows) HWY_ATTR {
    if (product.arithmetic == DType::kBF16) {
      MultiplyRowsOf<rows, BFloat16>(product, begin, end);
    } else {
      MultiplyRowsOf<rows, float>(product, begin, end);
    }
  });
}

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace runahead::cpu {
HWY_EXPORT(MultiplyColumns);
HWY_EXPORT(MultiplyInPlace);

void MultiplyFewRows(const Team& team, const FewRowsProduct& product) {
  CHECK(0 < product.rows && product.rows <= kFewRows);
  constexpr int64_t kWorthAThread = int64_t{1} << 17;  // weights
  if (product.in_place) {
    team.RunRanges(product.out_features, 1 + kWorthAThread / product.in_features, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(MultiplyInPlace)(product, begin, end);
    });
    return;
  }
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
