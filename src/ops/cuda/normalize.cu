// RMS norm (Zhang and Sennrich 2019) and layer norm (Ba et al. 2016) of rows, with the residual's update in the same
// pass.
#include <algorithm>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr int kMaxThreads = 1024;

template <typename T>
struct Rows {
  T* x;
  int64_t x_stride;
  const T* delta;  // null: nothing is added
  int64_t delta_stride;
  T* out;
  int64_t out_stride;
  const float* weight;
  const float* bias;  // or null
  int features;
  float epsilon;
  bool centred;  // layer norm
};

/// A block per row, at most kMaxThreads threads; the row waits in shared memory, features floats of it. Reads x (and
/// delta), writes out (and x). kPer divides the features, and rows are aligned to kPer elements.
template <typename T, int kPer>
__global__ void __launch_bounds__(kMaxThreads) NormalizeRows(const Rows<T> rows) {
  extern __shared__ float row[];
  __shared__ float scratch[33];
  WaitForPredecessors();
  ReleaseSuccessors();
  const int begin = static_cast<int>(threadIdx.x) * kPer;
  const int step = static_cast<int>(blockDim.x) * kPer;
  T* const x = rows.x + blockIdx.x * rows.x_stride;
  const T* const delta = rows.delta == nullptr ? nullptr : rows.delta + blockIdx.x * rows.delta_stride;

  float sum = 0;
  for (int i = begin; i < rows.features; i += step) {
    Vector<T, kPer> values = Load<kPer>(x + i);
    if (delta != nullptr) {
      const auto added = Load<kPer>(delta + i);
#pragma unroll
      for (int j = 0; j < kPer; ++j) {
        values.values[j] = FromFloat<T>(ToFloat(values.values[j]) + ToFloat(added.values[j]));
      }
      Store(x + i, values);
    }
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      const float value = ToFloat(values.values[j]);
      row[i + j] = value;
      sum += rows.centred ? value : value * value;
    }
  }
  sum = BlockSum(sum, scratch);
  const auto count = static_cast<float>(rows.features);
  float mean = 0;
  if (rows.centred) {
    mean = sum / count;
    float squares = 0;
    for (int i = begin; i < rows.features; i += step) {
#pragma unroll
      for (int j = 0; j < kPer; ++j) squares += (row[i + j] - mean) * (row[i + j] - mean);
    }
    sum = BlockSum(squares, scratch);
  }
  const float scale = 1.0f / sqrtf(sum / count + rows.epsilon);
  T* const out = rows.out + blockIdx.x * rows.out_stride;
  for (int i = begin; i < rows.features; i += step) {
    Vector<T, kPer> result;
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      const float shift = rows.bias == nullptr ? 0.0f : rows.bias[i + j];
      result.values[j] = FromFloat<T>((row[i + j] - mean) * scale * rows.weight[i + j] + shift);
    }
    Store(out + i, result);
  }
}

void NormalizeAny(const LaunchOn& on, TensorView x, const TensorView* delta, const Norm& norm, TensorView out) {
  const int64_t features = x.row_elements();
  DispatchDevice(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    Rows<T> rows{};
    rows.x = Pointer<T>(x);
    rows.x_stride = x.row_stride();
    if (delta != nullptr) {
      rows.delta = Pointer<T>(*delta);
      rows.delta_stride = delta->row_stride();
    }
    rows.out = Pointer<T>(out);
    rows.out_stride = out.row_stride();
    rows.weight = Pointer<float>(norm.weight.view);
    rows.bias = Pointer<float>(norm.bias.view);
    rows.features = static_cast<int>(features);
    rows.epsilon = norm.epsilon;
    rows.centred = norm.kind == NormKind::kLayer;
    const bool vectors = Vectorizable(x, features) && Vectorizable(out, features) &&
                         (delta == nullptr || Vectorizable(*delta, features));
    const int64_t per = vectors ? kPerVector<T> : 1;
    constexpr int64_t kPerThread = 2;  // vectors: enough at a time, and several rows on a multiprocessor
    const int64_t warps = std::clamp<int64_t>((features / per / kPerThread + 31) / 32, 1, kMaxThreads / 32);
    const auto kernel = vectors ? &NormalizeRows<T, kPerVector<T>> : &NormalizeRows<T, 1>;
    Launch(on, kernel, dim3(static_cast<unsigned>(x.rows())), dim3(static_cast<unsigned>(32 * warps)),
           static_cast<size_t>(features) * sizeof(float), rows);
  });
}

}  // namespace

void Normalize(const LaunchOn& on, TensorView x, const Norm& norm, TensorView out) {
  NormalizeAny(on, x, nullptr, norm, out);
}

void AddNormalize(const LaunchOn& on, TensorView x, TensorView delta, const Norm& norm, TensorView out) {
  NormalizeAny(on, x, &delta, norm, out);
}

}  // namespace runahead::cuda
