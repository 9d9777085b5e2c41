// Vectors of rows for the kernels with products of bf16 pairs: the same operations on 16 and on 8 lanes.
#pragma once

#include <hwy/base.h>

#if HWY_ARCH_X86_64

#if defined(__GNUC__) && !defined(__clang__)
// The compiler's own intrinsics leave values undefined on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace runahead::cpu {

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")

/// A pair of bf16, both 1.
constexpr int kOnes = 0x3f803f80;

struct Wide {
  static constexpr int64_t kLanes = 16;
  using Floats = __m512;
  using Pairs = __m512i;
  using Mask = __mmask16;
  static Floats Zero() { return _mm512_setzero_ps(); }
  static Floats Set(float x) { return _mm512_set1_ps(x); }
  static Floats Load(const float* from) { return _mm512_loadu_ps(from); }
  static void Store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
  static Floats Add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats Sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
  static Floats Mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats Div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
  static Floats Fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static Floats Fms(Floats a, Floats b, Floats c) { return _mm512_fmsub_ps(a, b, c); }
  static Floats Max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
  static Floats Min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
  static Floats Fraction(Floats x) { return _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  static Floats Scale(Floats p, Floats x) { return _mm512_scalef_ps(p, x); }
  static bool Same(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ) == 0; }
  static Floats Keep(Mask mask, Floats x, Floats other) { return _mm512_mask_mov_ps(other, mask, x); }
  static Mask Within(int32_t key, const int32_t* first, const int32_t* last) {
    const __m512i own = _mm512_set1_epi32(key);
    return _mm512_cmple_epi32_mask(_mm512_loadu_si512(first), own) &
           _mm512_cmple_epi32_mask(own, _mm512_loadu_si512(last));
  }
  static Floats Dot(Floats sum, uint32_t left, const uint32_t* right) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int32_t>(left))),
                            reinterpret_cast<__m512bh>(_mm512_loadu_si512(right)));
  }
  /// The upper halves of two floats side by side: pairs of bf16 of two neighbouring keys.
  static Pairs UpperHalves(Floats even, Floats odd) {
    return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(_mm512_castps_si512(even), 16),
                                   _mm512_castps_si512(odd));
  }
  static void StorePairs(uint32_t* to, Pairs pairs) { _mm512_storeu_si512(to, pairs); }
  /// sum + even + odd.
  static Floats AddPairs(Floats sum, Pairs pairs) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(pairs),
                            reinterpret_cast<__m512bh>(_mm512_set1_epi32(kOnes)));
  }
};

struct Narrow {
  static constexpr int64_t kLanes = 8;
  using Floats = __m256;
  using Pairs = __m256i;
  using Mask = __mmask8;
  static Floats Zero() { return _mm256_setzero_ps(); }
  static Floats Set(float x) { return _mm256_set1_ps(x); }
  static Floats Load(const float* from) { return _mm256_loadu_ps(from); }
  static void Store(float* to, Floats x) { _mm256_storeu_ps(to, x); }
  static Floats Add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Floats Sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
  static Floats Mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats Div(Floats a, Floats b) { return _mm256_div_ps(a, b); }
  static Floats Fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static Floats Fms(Floats a, Floats b, Floats c) { return _mm256_fmsub_ps(a, b, c); }
  static Floats Max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
  static Floats Min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
  static Floats Fraction(Floats x) { return _mm256_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  static Floats Scale(Floats p, Floats x) { return _mm256_scalef_ps(p, x); }
  static bool Same(Floats a, Floats b) { return _mm256_cmp_ps_mask(a, b, _CMP_NEQ_UQ) == 0; }
  static Floats Keep(Mask mask, Floats x, Floats other) { return _mm256_mask_mov_ps(other, mask, x); }
  static Mask Within(int32_t key, const int32_t* first, const int32_t* last) {
    const __m256i own = _mm256_set1_epi32(key);
    return static_cast<Mask>(
        _mm256_cmple_epi32_mask(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(first)), own) &
        _mm256_cmple_epi32_mask(own, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(last))));
  }
  static Floats Dot(Floats sum, uint32_t left, const uint32_t* right) {
    return _mm256_dpbf16_ps(sum, reinterpret_cast<__m256bh>(_mm256_set1_epi32(static_cast<int32_t>(left))),
                            reinterpret_cast<__m256bh>(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(right))));
  }
  static Pairs UpperHalves(Floats even, Floats odd) {
    return _mm256_blend_epi16(_mm256_srli_epi32(_mm256_castps_si256(even), 16), _mm256_castps_si256(odd), 0xaa);
  }
  static void StorePairs(uint32_t* to, Pairs pairs) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), pairs); }
  static Floats AddPairs(Floats sum, Pairs pairs) {
    return _mm256_dpbf16_ps(sum, reinterpret_cast<__m256bh>(pairs),
                            reinterpret_cast<__m256bh>(_mm256_set1_epi32(kOnes)));
  }
};

/// 2^x = Scale(p, x), where p = 2^(x - floor(x)) by a minimax polynomial on [0, 1] that is `at_zero` at 0: 1, and
/// what else is to be added to p.
template <typename V, size_t kDegree>
inline typename V::Floats Exp2(typename V::Floats x, const float (&coefficients)[kDegree], float at_zero) {
  const typename V::Floats r = V::Fraction(x);
  typename V::Floats p = V::Set(coefficients[0]);
#pragma GCC unroll 4
  for (size_t i = 1; i < kDegree; ++i) p = V::Fma(p, r, V::Set(coefficients[i]));
  return V::Scale(V::Fma(p, r, V::Set(at_zero)), x);
}

/// To a relative error of 9e-5: a twentieth of what rounding weights to bf16 loses.
constexpr float kOfWeights[] = {0.077067039907f, 0.227644994855f, 0.695116758347f};
/// To a relative error of 3e-6.
constexpr float kOfCaps[] = {0.013426683843f, 0.052242472768f, 0.241280198097f, 0.693044841290f};

HWY_POP_ATTRIBUTES

}  // namespace runahead::cpu

#endif
