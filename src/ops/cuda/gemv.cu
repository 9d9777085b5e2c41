// One row times a weight matrix: what decoding does most, at the speed the weights can be read.
#include "ops/cuda/launch.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kInFlight = 8;  // vectors of the weights that a lane waits for at a time

/// Elements that are read once: they take no room in the first cache, and their neighbours come along to the second.
template <int N, typename T>
__device__ Vector<T, N> LoadOnce(const T* from) {
  if constexpr (sizeof(T) * N == 16) {
    union {
      uint4 bits;
      Vector<T, N> elements;
    } loaded{};
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(loaded.bits.x), "=r"(loaded.bits.y), "=r"(loaded.bits.z), "=r"(loaded.bits.w)
                 : "l"(from));
    return loaded.elements;
  } else {
    return Load<N>(from);
  }
}

template <typename T, int kPer>
__device__ float Dot(const Vector<T, kPer>& a, const Vector<T, kPer>& b, float sum) {
#pragma unroll
  for (int j = 0; j < kPer; ++j) sum += ToFloat(a.values[j]) * ToFloat(b.values[j]);
  return sum;
}

/// A warp computes kRows neighbouring outputs; a block has kWarps warps. Reads the weights once:
/// out_features * in_features elements. kPer divides in_features; x and the weights' rows are aligned to kPer
/// elements. The first weights are on their way before the kernel that makes x has ended.
template <typename T, int kPer, int kRows, typename Y>
__global__ void __launch_bounds__(32 * kWarps)
    RowTimesMatrix(const T* __restrict__ x, const T* __restrict__ weights, const float* __restrict__ bias, Y* y,
                   int in_features, int out_features) {
  constexpr int kUnroll = kInFlight / kRows;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / 32) * kRows;
  const T* rows[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {  // a row beyond the last reads the last one again
    rows[r] = weights + static_cast<int64_t>(min(first + r, out_features - 1)) * in_features;
  }

  constexpr int kStep = 32 * kPer;
  Vector<T, kPer> ahead[kUnroll][kRows];
  const auto fetch = [&](int begin) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = begin + u * kStep + lane * kPer;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (i < in_features) ahead[u][r] = LoadOnce<kPer>(rows[r] + i);
      }
    }
  };
  fetch(0);
  WaitForPredecessors();
  ReleaseSuccessors();

  float sums[kRows] = {};
  for (int begin = 0; begin < in_features; begin += kUnroll * kStep) {
    if (begin > 0) fetch(begin);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = begin + u * kStep + lane * kPer;
      if (i >= in_features) break;
      const auto operand = Load<kPer>(x + i);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r] = Dot(ahead[u][r], operand, sums[r]);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float sum = WarpSum(sums[r]);
    const int row = first + r;
    if (lane == 0 && row < out_features) y[row] = FromFloat<Y>(sum + (bias == nullptr ? 0.0f : bias[row]));
  }
}

/// A block computes kRows neighbouring outputs, its warps side by side along the rows: for matrices of few rows, whose
/// reads would otherwise be too few at a time. Otherwise as RowTimesMatrix.
template <typename T, int kPer, int kRows, typename Y>
__global__ void __launch_bounds__(32 * kWarps, 2)
    RowTimesFewRows(const T* __restrict__ x, const T* __restrict__ weights, const float* __restrict__ bias, Y* y,
                    int in_features, int out_features) {
  constexpr int kUnroll = kInFlight / kRows;
  constexpr int kStep = 32 * kWarps * kPer;
  __shared__ float partial[kWarps][kRows];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int first = static_cast<int>(blockIdx.x) * kRows;
  const int own = static_cast<int>(threadIdx.x) * kPer;
  const T* rows[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    rows[r] = weights + static_cast<int64_t>(min(first + r, out_features - 1)) * in_features;
  }

  Vector<T, kPer> now[kUnroll][kRows];
  Vector<T, kPer> next[kUnroll][kRows];
  const auto fetch = [&](int begin, Vector<T, kPer>(&into)[kUnroll][kRows]) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = begin + u * kStep + own;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (i < in_features) into[u][r] = LoadOnce<kPer>(rows[r] + i);
      }
    }
  };
  fetch(0, now);
  fetch(kUnroll * kStep, next);
  WaitForPredecessors();
  ReleaseSuccessors();

  float sums[kRows] = {};
  for (int begin = 0; begin < in_features; begin += kUnroll * kStep) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = begin + u * kStep + own;
      if (i >= in_features) break;
      const auto operand = Load<kPer>(x + i);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r] = Dot(now[u][r], operand, sums[r]);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) now[u][r] = next[u][r];
    }
    fetch(begin + 2 * kUnroll * kStep, next);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    sums[r] = WarpSum(sums[r]);
    if (lane == 0) partial[warp][r] = sums[r];
  }
  __syncthreads();
  const int r = static_cast<int>(threadIdx.x);
  if (r >= kRows || first + r >= out_features) return;
  float sum = bias == nullptr ? 0.0f : bias[first + r];
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += partial[w][r];
  y[first + r] = FromFloat<Y>(sum);
}

template <typename T, typename Y>
void MultiplyRowTyped(const LaunchOn& on, const T* x, const T* weights, const float* bias, Y* y, int64_t in_features,
                      int64_t out_features) {
  constexpr int64_t kFew = 8192;  // outputs of a matrix of few rows
  constexpr int kRows = 2;        // of a warp
  constexpr int kBlockRows = 4;   // of a block where there are few
  constexpr int kPer = kPerVector<T>;
  const bool vectors = in_features % kPer == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0 &&
                       reinterpret_cast<uintptr_t>(weights) % 16 == 0;
  const bool few = vectors && out_features <= kFew;
  const auto kernel = few       ? &RowTimesFewRows<T, kPer, kBlockRows, Y>
                      : vectors ? &RowTimesMatrix<T, kPer, kRows, Y>
                                : &RowTimesMatrix<T, 1, kRows, Y>;
  const int64_t per_block = few ? kBlockRows : static_cast<int64_t>(kWarps) * kRows;
  const auto blocks = static_cast<unsigned>((out_features + per_block - 1) / per_block);
  Launch(on, kernel, dim3(blocks), dim3(32 * kWarps), 0, x, weights, bias, y, static_cast<int>(in_features),
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
