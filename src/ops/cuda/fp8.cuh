// Numbers of 8 bits on the GPU, with 4 bits of exponent and 3 of mantissa ("FP8 Formats for Deep Learning",
// Micikevicius et al. 2022).
#pragma once

#include <cuda_fp8.h>

#include "ops/cuda/vector.cuh"

namespace runahead::cuda {

using E4M3 = __nv_fp8_e4m3;

constexpr float kLargestE4M3 = 448;

__device__ inline float ToFloat(E4M3 x) { return static_cast<float>(x); }

__device__ inline unsigned WordOf(const uint4& bytes, int i) {
  return i == 0 ? bytes.x : i == 1 ? bytes.y : i == 2 ? bytes.z : bytes.w;
}

/// The two lower numbers of a word, or the two upper ones.
__device__ inline __half2 PairOf(unsigned word, int half) {
  const auto both = static_cast<__nv_fp8x2_storage_t>(half == 0 ? word : word >> 16);
  return __half2(__nv_cvt_fp8x2_to_halfraw2(both, __NV_E4M3));
}

/// The same as two neighbours in a word of T, of 16 bits, which holds them exactly.
template <typename T>
__device__ unsigned PairAs(unsigned word, int half) {
  const __half2 pair = PairOf(word, half);
  if constexpr (std::is_same_v<T, __half>) {
    return *reinterpret_cast<const unsigned*>(&pair);
  } else {
    const __nv_bfloat162 wide = __float22bfloat162_rn(__half22float2(pair));
    return *reinterpret_cast<const unsigned*>(&wide);
  }
}

}  // namespace runahead::cuda
