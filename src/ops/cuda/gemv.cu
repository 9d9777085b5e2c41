// One row times a weight matrix: what decoding does most, at the speed the weights can be read.
#include "ops/cuda/launch.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kInFlight = 8;  // 16-byte reads of the weights that a lane waits for at a time

/// 16 bytes that are read once: they take no room in the first cache, and their neighbours come along to the second.
__device__ uint4 LoadOnce(const void* from) {
  uint4 bytes;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(bytes.x), "=r"(bytes.y), "=r"(bytes.z), "=r"(bytes.w)
               : "l"(from));
  return bytes;
}

/// sum + a . b over the elements of 16 bytes.
template <typename T>
__device__ float Dot(const uint4& a, const uint4& b, float sum) {
#pragma unroll
  for (int j = 0; j < kPerVector<T>; ++j) sum += ElementOf<T>(a, j) * ElementOf<T>(b, j);
  return sum;
}

/// Sums up a thread's share of kRows rows of weights times x: the elements from `own` on, every `kStep`. The weights
/// of the first two rounds are on their way before the kernel that makes x has ended.
template <typename T, int kRows, int kStep>
__device__ void Accumulate(const T* x, const T* const (&rows)[kRows], int own, int in_features,
                           float (&sums)[kRows]) {
  constexpr int kUnroll = kInFlight / kRows;
  uint4 now[kUnroll][kRows];
  uint4 next[kUnroll][kRows];
  const auto fetch = [&](int begin, uint4(&into)[kUnroll][kRows]) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = begin + u * kStep + own;
#pragma unroll
      for (int r = 0; r < kRows; ++r) into[u][r] = i < in_features ? LoadOnce(rows[r] + i) : make_uint4(0, 0, 0, 0);
    }
  };
  fetch(0, now);
  fetch(kUnroll * kStep, next);
  WaitForPredecessors();
  ReleaseSuccessors();
  for (int begin = 0; begin < in_features; begin += kUnroll * kStep) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = begin + u * kStep + own;
      if (i >= in_features) break;
      const uint4 operand = *reinterpret_cast<const uint4*>(x + i);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r] = Dot<T>(now[u][r], operand, sums[r]);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) now[u][r] = next[u][r];
    }
    fetch(begin + 2 * kUnroll * kStep, next);
  }
}

/// Rows first, ... of the weights; a row beyond the last reads the last one again.
template <typename T, int kRows>
__device__ void PointAtRows(const T* weights, int first, int in_features, int out_features, const T* (&rows)[kRows]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    rows[r] = weights + static_cast<int64_t>(min(first + r, out_features - 1)) * in_features;
  }
}

/// A warp computes kRows neighbouring outputs. Reads the weights once: out_features * in_features elements. Rows of
/// the weights and x are aligned to 16 bytes.
template <typename T, int kRows, typename Y>
__global__ void __launch_bounds__(kThreads, 2)
    RowTimesMatrix(const T* x, const T* weights, const float* bias, Y* y, int in_features, int out_features) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / 32) * kRows;
  const T* rows[kRows];
  PointAtRows(weights, first, in_features, out_features, rows);
  float sums[kRows] = {};
  Accumulate<T, kRows, 32 * kPerVector<T>>(x, rows, lane * kPerVector<T>, in_features, sums);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float sum = WarpSum(sums[r]);
    const int row = first + r;
    if (lane == 0 && row < out_features) y[row] = FromFloat<Y>(sum + (bias == nullptr ? 0.0f : bias[row]));
  }
}

/// A block computes kRows neighbouring outputs, its warps side by side along the rows: for matrices of few rows,
/// which would otherwise keep few warps busy. Otherwise as RowTimesMatrix.
template <typename T, int kRows, typename Y>
__global__ void __launch_bounds__(kThreads, 2)
    RowTimesFewRows(const T* x, const T* weights, const float* bias, Y* y, int in_features, int out_features) {
  __shared__ float partial[kWarps][kRows];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int first = static_cast<int>(blockIdx.x) * kRows;
  const T* rows[kRows];
  PointAtRows(weights, first, in_features, out_features, rows);
  float sums[kRows] = {};
  Accumulate<T, kRows, kThreads * kPerVector<T>>(x, rows, static_cast<int>(threadIdx.x) * kPerVector<T>, in_features,
                                                 sums);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float sum = WarpSum(sums[r]);
    if (lane == 0) partial[warp][r] = sum;
  }
  __syncthreads();
  const int r = static_cast<int>(threadIdx.x);
  if (r >= kRows || first + r >= out_features) return;
  float sum = bias == nullptr ? 0.0f : bias[first + r];
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += partial[w][r];
  y[first + r] = FromFloat<Y>(sum);
}

/// A warp per output, for any size and alignment.
template <typename T, typename Y>
__global__ void __launch_bounds__(kThreads)
    RowTimesAny(const T* x, const T* weights, const float* bias, Y* y, int in_features, int out_features) {
  WaitForPredecessors();
  ReleaseSuccessors();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / 32);
  if (row >= out_features) return;
  const T* const own = weights + static_cast<int64_t>(row) * in_features;
  float sum = 0;
  for (int i = lane; i < in_features; i += 32) sum += ToFloat(own[i]) * ToFloat(x[i]);
  sum = WarpSum(sum);
  if (lane == 0) y[row] = FromFloat<Y>(sum + (bias == nullptr ? 0.0f : bias[row]));
}

template <typename T, typename Y>
void MultiplyRowTyped(const LaunchOn& on, const T* x, const T* weights, const float* bias, Y* y, int64_t in_features,
                      int64_t out_features) {
  constexpr int64_t kFew = 8192;  // outputs of a matrix of few rows
  constexpr int kRows = 2;        // of a warp
  constexpr int kBlockRows = 4;   // of a block where there are few
  const bool vectors = in_features % kPerVector<T> == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0 &&
                       reinterpret_cast<uintptr_t>(weights) % 16 == 0;
  const bool few = out_features <= kFew;
  const auto kernel = !vectors ? &RowTimesAny<T, Y>
                      : few    ? &RowTimesFewRows<T, kBlockRows, Y>
                               : &RowTimesMatrix<T, kRows, Y>;
  const int64_t per_block = !vectors ? kWarps : few ? kBlockRows : static_cast<int64_t>(kWarps) * kRows;
  const auto blocks = static_cast<unsigned>((out_features + per_block - 1) / per_block);
  Launch(on, kernel, dim3(blocks), dim3(kThreads), 0, x, weights, bias, y, static_cast<int>(in_features),
         static_cast<int>(out_features));
}

}  // namespace

void MultiplyRow(const LaunchOn& on, const void* x, DType dtype, const void* weights, const float* bias, void* y,
                 DType y_dtype, int64_t in_features, int64_t out_features) {
  DispatchDevice(dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto* const row = static_cast<const T*>(x);
    const auto* const matrix = static_cast<const T*>(weights);
    if (y_dtype == dtype) {
      MultiplyRowTyped(on, row, matrix, bias, static_cast<T*>(y), in_features, out_features);
    } else {
      CHECK(y_dtype == DType::kF32);
      MultiplyRowTyped(on, row, matrix, bias, static_cast<float*>(y), in_features, out_features);
    }
  });
}

}  // namespace runahead::cuda
