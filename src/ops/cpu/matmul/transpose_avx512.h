// Squares of 16 by 16 lanes in AVX-512 registers.
#pragma once

#include <hwy/base.h>

#if HWY_ARCH_X86_64

#include <immintrin.h>

namespace runahead::cpu {

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")

/// rows[i][j] becomes rows[j][i], of lanes of 32 bits.
HWY_INLINE void Transpose(__m512i (&rows)[16]) {
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {  // squares of four, within blocks of 128 bits
    const __m512i low01 = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    const __m512i high01 = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    const __m512i low23 = _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]);
    const __m512i high23 = _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]);
    rows[i] = _mm512_unpacklo_epi64(low01, low23);
    rows[i + 1] = _mm512_unpackhi_epi64(low01, low23);
    rows[i + 2] = _mm512_unpacklo_epi64(high01, high23);
    rows[i + 3] = _mm512_unpackhi_epi64(high01, high23);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // the blocks
    const __m512i low04 = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0x44);
    const __m512i high04 = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0xee);
    const __m512i low8c = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0x44);
    const __m512i high8c = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0xee);
    rows[i] = _mm512_shuffle_i32x4(low04, low8c, 0x88);
    rows[i + 4] = _mm512_shuffle_i32x4(low04, low8c, 0xdd);
    rows[i + 8] = _mm512_shuffle_i32x4(high04, high8c, 0x88);
    rows[i + 12] = _mm512_shuffle_i32x4(high04, high8c, 0xdd);
  }
}

HWY_POP_ATTRIBUTES

}  // namespace runahead::cpu

#endif
