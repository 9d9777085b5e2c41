// RMS norm (Zhang and Sennrich 2019) and layer norm (Ba et al. 2016) of rows.
#include <algorithm>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr int kMaxThreads = 1024;

template <typename T>
struct Rows {
  const T* x;
  int64_t x_stride;
  T* out;
  int64_t out_stride;
  const float* weight;
  const float* bias;  // [features], or null
  int features;
  float epsilon;
  bool centred;  // layer norm
};

/// N weights from element i on.
template <int N>
__device__ void LoadFloats(const float* from, int i, float (&values)[N]) {
  constexpr int kStep = N < 4 ? 1 : 4;
#pragma unroll
  for (int j = 0; j < N; j += kStep) {
    const auto loaded = Load<kStep>(from + i + j);
#pragma unroll
    for (int k = 0; k < kStep; ++k) values[j + k] = loaded.values[k];
  }
}

/// A block per row, at most kMaxThreads threads. Reads x, writes out; of rows with more than kHeld vectors for each
/// thread the rest of x is read again for each sum. kPer divides the features, and rows are aligned to kPer
/// elements.
template <typename T, int kPer>
__global__ void __launch_bounds__(kMaxThreads) NormalizeRows(const Rows<T> rows) {
  constexpr int kHeld = 4;
  __shared__ float scratch[33];
  const int begin = static_cast<int>(threadIdx.x) * kPer;
  const int step = static_cast<int>(blockDim.x) * kPer;
  if (gridDim.x == 1) {
    for (int i = begin; i < rows.features; i += step) Prefetch(rows.weight + i);
  }
  ReleaseSuccessors();
  WaitForPredecessors();
  const T* const x = rows.x + blockIdx.x * rows.x_stride;

  Vector<T, kPer> held[kHeld];
  /// Calls function(i, vector) for each of the thread's vectors.
  const auto visit = [&](const auto& function) {
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      const int i = begin + h * step;
      if (i < rows.features) function(i, held[h]);
    }
    for (int i = begin + kHeld * step; i < rows.features; i += step) {
      function(i, Load<kPer>(x + i));
    }
  };
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    if (begin + h * step < rows.features) held[h] = Load<kPer>(x + begin + h * step);
  }
  float sum = 0;
  visit([&](int /*i*/, const Vector<T, kPer>& vector) {
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      const float value = ToFloat(vector.values[j]);
      sum += rows.centred ? value : value * value;
    }
  });
  sum = BlockSum(sum, scratch);
  const auto count = static_cast<float>(rows.features);
  float mean = 0;
  if (rows.centred) {
    mean = sum / count;
    float squares = 0;
    visit([&](int /*i*/, const Vector<T, kPer>& vector) {
#pragma unroll
      for (int j = 0; j < kPer; ++j) {
        squares += (ToFloat(vector.values[j]) - mean) * (ToFloat(vector.values[j]) - mean);
      }
    });
    sum = BlockSum(squares, scratch);
  }
  const float scale = 1.0f / sqrtf(sum / count + rows.epsilon);
  T* const out = rows.out + blockIdx.x * rows.out_stride;
  visit([&](int i, const Vector<T, kPer>& vector) {
    float weight[kPer];
    float bias[kPer] = {};
    LoadFloats(rows.weight, i, weight);
    if (rows.bias != nullptr) LoadFloats(rows.bias, i, bias);
    Vector<T, kPer> result;
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      result.values[j] = FromFloat<T>((ToFloat(vector.values[j]) - mean) * scale * weight[j] + bias[j]);
    }
    Store(out + i, result);
  });
}

}  // namespace

void Normalize(const LaunchOn& on, TensorView x, const Norm& norm, TensorView out) {
  const int64_t features = x.row_elements();
  DispatchDevice(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    Rows<T> rows{};
    rows.x = Pointer<T>(x);
    rows.x_stride = x.row_stride();
    rows.out = Pointer<T>(out);
    rows.out_stride = out.row_stride();
    rows.weight = Pointer<float>(norm.weight.view);
    rows.bias = Pointer<float>(norm.bias.view);
    rows.features = static_cast<int>(features);
    rows.epsilon = norm.epsilon;
    rows.centred = norm.kind == NormKind::kLayer;
    const auto aligned = [](const float* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
    const bool vectors =
        Vectorizable(x, features) && Vectorizable(out, features) && aligned(rows.weight) && aligned(rows.bias);
    const int64_t per = vectors ? kPerVector<T> : 1;
    // Vectors of a thread: many rows are fastest by many small blocks, one row by many threads.
    const int64_t per_thread = x.rows() > 1 ? 4 : 1;
    const int64_t warps = std::clamp<int64_t>((features / per / per_thread + 31) / 32, 1, kMaxThreads / 32);
    const auto kernel = vectors ? &NormalizeRows<T, kPerVector<T>> : &NormalizeRows<T, 1>;
    Launch(on, kernel, dim3(static_cast<unsigned>(x.rows())), dim3(static_cast<unsigned>(32 * warps)), 0, rows);
  });
}

}  // namespace runahead::cuda
