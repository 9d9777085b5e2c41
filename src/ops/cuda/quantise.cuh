// How a block makes e4m3 of a row of numbers.
#pragma once

#include "ops/cuda/fp8.cuh"

namespace runahead::cuda {

/// The largest of the block's, in each thread. `scratch`: 33 words of shared memory. The block is a multiple of 32
/// threads.
__device__ inline unsigned BlockMax(unsigned x, unsigned* scratch) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  x = __reduce_max_sync(0xffffffffu, x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  if (warp == 0) {
    const unsigned largest = __reduce_max_sync(0xffffffffu, lane < warps ? scratch[lane] : 0u);
    if (lane == 0) scratch[32] = largest;
  }
  __syncthreads();
  return scratch[32];
}

/// How a row becomes e4m3.
struct RowScale {
  float scale;   // a number is its code times this
  float factor;  // of numbers before they are rounded
};

/// `bits`: of the row's largest magnitude, those of an infinity or beyond where a number is not finite. given: the
/// row's scale, or null.
__device__ inline RowScale ScaleFor(unsigned bits, const float* given) {
  constexpr unsigned kInfinityBits = 0x7f800000u;
  constexpr float kSmallest = 0x1p-100f;  // rows without a larger magnitude are zeros
  if (bits >= kInfinityBits) return {__uint_as_float(0x7fc00000u), 0.0f};
  if (given != nullptr) return {*given, 1 / *given};
  const float largest = __uint_as_float(bits);
  if (largest < kSmallest) return {0.0f, 0.0f};
  return {largest / kLargestE4M3, kLargestE4M3 / largest};
}

template <int kPer>
__device__ void StoreCodes(const float (&values)[kPer], uint8_t* to) {
  if constexpr (kPer == 1) {
    *to = __nv_cvt_float_to_fp8(values[0], __NV_SATFINITE, __NV_E4M3);
  } else {
    Vector<unsigned short, kPer / 2> pairs;
#pragma unroll
    for (int j = 0; j < kPer; j += 2) {
      pairs.values[j / 2] =
          __nv_cvt_float2_to_fp8x2(make_float2(values[j], values[j + 1]), __NV_SATFINITE, __NV_E4M3);
    }
    Store(reinterpret_cast<unsigned short*>(to), pairs);
  }
}

/// The larger of `largest` and the magnitudes of a vector, as bits.
template <typename T, int kPer>
__device__ unsigned LargestBits(const Vector<T, kPer>& vector, unsigned largest) {
#pragma unroll
  for (int j = 0; j < kPer; ++j) largest = max(largest, __float_as_uint(ToFloat(vector.values[j])) & 0x7fffffffu);
  return largest;
}

template <typename T, int kPer>
__device__ void StoreAsCodes(const Vector<T, kPer>& vector, float factor, uint8_t* to) {
  float values[kPer];
#pragma unroll
  for (int j = 0; j < kPer; ++j) values[j] = ToFloat(vector.values[j]) * factor;
  StoreCodes(values, to);
}

}  // namespace runahead::cuda
