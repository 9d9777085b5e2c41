// A few rows times bf16 columns, with AVX-512 BF16.
#include <hwy/base.h>

#include "base/check.h"
#include "ops/cpu/few_rows.h"

#if HWY_ARCH_X86_64

#if defined(__GNUC__) && !defined(__clang__)
// The compiler's own intrinsics leave values undefined on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cstring>

namespace runahead::cpu {
namespace {

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")

template <int kRows>
inline void MultiplyColumn(const FewRowsProduct& product, int64_t column) {
  constexpr int kVectors = kColumnFeatures / 16;
  const int64_t in_features = product.in_features;
  const int64_t pairs = in_features / 2;
  const auto* x = static_cast<const uint16_t*>(product.x);
  const uint16_t* weights =
      static_cast<const uint16_t*>(product.weights) + column * ((in_features + 31) / 32 * 32) * kColumnFeatures;
  __m512 sum[kRows][kVectors];
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[i][v] = _mm512_setzero_ps();
  }
  const auto add = [&](int64_t k, const uint32_t* pair) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const auto weight =
          reinterpret_cast<__m512bh>(_mm512_loadu_si512(weights + (k * kColumnFeatures + 16 * v) * 2));
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) {
        const auto factor = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(pair[i])));
        sum[i][v] = _mm512_dpbf16_ps(sum[i][v], weight, factor);
      }
    }
  };
  uint32_t pair[kRows];
  for (int64_t k = 0; k < pairs; ++k) {
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) std::memcpy(&pair[i], x + i * in_features + 2 * k, sizeof(uint32_t));
    add(k, pair);
  }
  if (in_features % 2 != 0) {
    for (int i = 0; i < kRows; ++i) pair[i] = x[i * in_features + in_features - 1];
    add(pairs, pair);
  }

  const int64_t first = column * kColumnFeatures;
  const int64_t n = std::min(kColumnFeatures, product.out_features - first);
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const int64_t left = std::clamp<int64_t>(n - 16 * v, 0, 16);
      const auto lanes = static_cast<__mmask16>((1u << left) - 1);
      __m512 value = sum[i][v];
      if (product.bias != nullptr) {
        value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(lanes, product.bias + first + 16 * v));
      }
      const int64_t at = i * product.out_features + first + 16 * v;
      if (product.result == DType::kF32) {
        _mm512_mask_storeu_ps(static_cast<float*>(product.y) + at, lanes, value);
      } else {
        _mm256_mask_storeu_epi16(static_cast<uint16_t*>(product.y) + at, lanes,
                                 reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
      }
    }
  }
}

HWY_POP_ATTRIBUTES

}  // namespace

void MultiplyFewRowsBf16(const FewRowsProduct& product, int64_t begin, int64_t end) {
  DispatchRows(product.rows, [&](auto rows) {
    for (int64_t column = begin; column < end; ++column) MultiplyColumn<rows>(product, column);
  });
}

}  // namespace runahead::cpu

#else

namespace runahead::cpu {

void MultiplyFewRowsBf16(const FewRowsProduct&, int64_t, int64_t) {
  internal::CheckFailed(__FILE__, __LINE__, "no bf16 arithmetic on this processor");
}

}  // namespace runahead::cpu

#endif
