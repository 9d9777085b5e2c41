// Element types on the GPU, 16-byte vectors of them, and sums over a block.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "tensor/tensor_view.h"

namespace runahead::cuda {

template <typename T>
struct DeviceTypeOf {
  using Type = float;
};
template <>
struct DeviceTypeOf<BFloat16> {
  using Type = __nv_bfloat16;
};
template <>
struct DeviceTypeOf<Float16> {
  using Type = __half;
};

/// Calls `function` with a zero of the GPU's type of `dtype`.
template <typename Function>
void DispatchDevice(DType dtype, Function&& function) {
  Dispatch(dtype, [&](auto zero) { function(typename DeviceTypeOf<decltype(zero)>::Type{}); });
}

/// The view's memory as the GPU's type of its dtype.
template <typename T>
T* Pointer(const TensorView& view) {
  return static_cast<T*>(view.data());
}

__device__ inline float ToFloat(float x) { return x; }
__device__ inline float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float ToFloat(__half x) { return __half2float(x); }

template <typename T>
__device__ T FromFloat(float x);
template <>
__device__ inline float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 FromFloat<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline __half FromFloat<__half>(float x) {
  return __float2half_rn(x);
}

/// Elements of a 16-byte access.
template <typename T>
constexpr int kPerVector = 16 / static_cast<int>(sizeof(T));

/// N neighbouring elements, moved by one access of at most 16 bytes.
template <typename T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Vector {
  T values[N];
};

template <int N, typename T>
__device__ Vector<T, N> Load(const T* from) {
  return *reinterpret_cast<const Vector<T, N>*>(from);
}
template <int N, typename T>
__device__ void Store(T* to, const Vector<T, N>& vector) {
  *reinterpret_cast<Vector<T, N>*>(to) = vector;
}

/// Element j of 16 bytes as they were loaded. Bytes that stay packed until they are used let many loads be under way:
/// unpacking would wait for each of them.
template <typename T>
__device__ float ElementOf(const uint4& bytes, int j) {
  const int word_index = j * static_cast<int>(sizeof(T)) / 4;
  const unsigned word = word_index == 0 ? bytes.x : word_index == 1 ? bytes.y : word_index == 2 ? bytes.z : bytes.w;
  if constexpr (sizeof(T) == 4) {
    return __uint_as_float(word);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __uint_as_float(j % 2 == 0 ? word << 16 : word & 0xffff0000u);
  } else {
    return __half2float(__ushort_as_half(static_cast<unsigned short>(j % 2 == 0 ? word : word >> 16)));
  }
}

/// Asks for what lies at `address` in the second cache.
__device__ inline void Prefetch(const void* address) { asm volatile("prefetch.global.L2 [%0];" ::"l"(address)); }

/// Whether rows of `view` can be moved by 16-byte accesses: `features` elements of each, from its beginning.
inline bool Vectorizable(const TensorView& view, int64_t features) {
  const auto per_vector = static_cast<int64_t>(16 / SizeOf(view.dtype()));
  return reinterpret_cast<uintptr_t>(view.data()) % 16 == 0 && features % per_vector == 0 &&
         (view.rows() <= 1 || view.row_stride() % per_vector == 0);
}

__device__ inline float WarpSum(float x) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

__device__ inline float WarpMax(float x) {
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

/// The sum of x over the block's threads, in each of them. `scratch`: 33 floats of shared memory. The block is a
/// multiple of 32 threads.
__device__ inline float BlockSum(float x, float* scratch) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  x = WarpSum(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  if (warp == 0) {
    const float total = WarpSum(lane < warps ? scratch[lane] : 0.0f);
    if (lane == 0) scratch[32] = total;
  }
  __syncthreads();
  const float total = scratch[32];
  __syncthreads();
  return total;
}

}  // namespace runahead::cuda
