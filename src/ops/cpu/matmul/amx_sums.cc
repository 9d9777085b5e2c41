#include "ops/cpu/matmul/amx_sums.h"

#include <hwy/base.h>

#if HWY_ARCH_X86_64

#if defined(__GNUC__) && !defined(__clang__)
// The compiler's own intrinsics leave values undefined on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <algorithm>

#include "ops/cpu/matmul/transpose_avx512.h"

namespace runahead::cpu {

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")

namespace {

constexpr int64_t kFeatures = 2 * kTileSide;

// ---- Any sink ---------------------------------------------------------------------------------------------------

/// to[j][i] = from[i][j] of a tile of sums; rows of `to` are kFeatures apart.
void Turn(const float* from, float* to) {
  for (int64_t j = 0; j < kTileSide; j += 4) {
    __m512 row[4];
    for (int64_t i = 0; i < 4; ++i) {
      const auto block = [&](int64_t b) { return _mm_loadu_ps(from + (4 * b + i) * kTileSide + j); };
      row[i] = _mm512_castps128_ps512(block(0));
      row[i] = _mm512_insertf32x4(row[i], block(1), 1);
      row[i] = _mm512_insertf32x4(row[i], block(2), 2);
      row[i] = _mm512_insertf32x4(row[i], block(3), 3);
    }
    const __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(row[0], row[1]));
    const __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(row[0], row[1]));
    const __m512d low23 = _mm512_castps_pd(_mm512_unpacklo_ps(row[2], row[3]));
    const __m512d high23 = _mm512_castps_pd(_mm512_unpackhi_ps(row[2], row[3]));
    _mm512_storeu_pd(to + j * kFeatures, _mm512_unpacklo_pd(low01, low23));
    _mm512_storeu_pd(to + (j + 1) * kFeatures, _mm512_unpackhi_pd(low01, low23));
    _mm512_storeu_pd(to + (j + 2) * kFeatures, _mm512_unpacklo_pd(high01, high23));
    _mm512_storeu_pd(to + (j + 3) * kFeatures, _mm512_unpackhi_pd(high01, high23));
  }
}

void StoreAny(const Sink& sink, const TileSums& sums, int64_t row, int64_t rows, int64_t feature, int64_t features) {
  alignas(64) float turned[kTileSide * kFeatures];
  if (sums.width == 1) {
    std::copy_n(sums.lower, kTileSide, turned);
    std::copy_n(sums.upper, kTileSide, turned + kTileSide);
  } else {
    Turn(sums.lower, turned);
    Turn(sums.upper, turned + kTileSide);
  }
  Store(sink, turned, kFeatures, row, rows, feature, features);
}

// ---- bf16, whole panels ---------------------------------------------------------------------------------------

/// The bits of the nearest bf16, ties to even, in the upper halves of lanes; NaN stays NaN.
inline __m512i Round(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
}

/// Pairs of neighbours: `even` in the lower halves of lanes, `odd` in the upper.
inline __m512i Pair(__m512i even, __m512i odd) {
  constexpr __mmask32 kOdd = 0xaaaaaaaa;
  return _mm512_mask_blend_epi16(kOdd, _mm512_srli_epi32(even, 16), odd);
}

/// Both bf16 of each lane as f32.
inline __m512 Lower(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
inline __m512 Upper(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

/// Features of one row in pairs: what is there, plus these.
inline __m512i Add(__m512i there, __m512i pairs) {
  return Pair(Round(_mm512_add_ps(Lower(there), Lower(pairs))), Round(_mm512_add_ps(Upper(there), Upper(pairs))));
}

void StoreBf16(const Sink& sink, const TileSums& sums, int64_t row, int64_t rows, int64_t feature) {
  __m512i pairs[16];  // of neighbouring features, lanes are rows
  const float* bias = sink.bias != nullptr ? sink.bias + feature : nullptr;
  const auto sum = [&](int64_t i) {
    const float* from = i < kTileSide ? sums.lower + i * kTileSide : sums.upper + (i - kTileSide) * kTileSide;
    const __m512 own = _mm512_loadu_ps(from);
    return bias != nullptr ? _mm512_add_ps(own, _mm512_set1_ps(bias[i])) : own;
  };
#pragma GCC unroll 16
  for (int64_t i = 0; i < 16; ++i) pairs[i] = Pair(Round(sum(2 * i)), Round(sum(2 * i + 1)));
  Transpose(pairs);
  BFloat16* y = sink.y.As<BFloat16>() + (row - sink.first_row) * sink.y.row_stride() + feature - sink.first_feature;
#pragma GCC unroll 16
  for (int64_t i = 0; i < 16; ++i) {
    if (i == rows) return;
    _mm512_storeu_si512(y, sink.add ? Add(_mm512_loadu_si512(y), pairs[i]) : pairs[i]);
    y += sink.y.row_stride();
  }
}

}  // namespace

HWY_POP_ATTRIBUTES

void StoreTiles(const Sink& sink, const TileSums& sums, int64_t row, int64_t rows, int64_t feature,
                int64_t features) {
  if (sink.y.dtype() == DType::kBF16 && features == kFeatures && sums.width == kTileSide) {
    return StoreBf16(sink, sums, row, rows, feature);
  }
  StoreAny(sink, sums, row, rows, feature, features);
}

}  // namespace runahead::cpu

#endif
