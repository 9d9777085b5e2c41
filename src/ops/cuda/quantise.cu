// Rows of numbers to e4m3, weights when they are loaded and activations in front of a product, and what is left to do
// with sums of such numbers.
#include <algorithm>

#include "ops/cuda/activation.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/quantise.cuh"

namespace runahead::cuda {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kFinishThreads = 256;
/// A block per row, at most kMaxThreads threads. Reads x, writes codes and a scale; of rows with more than kHeld
/// vectors for each thread the rest of x is read again. codes: [rows, features]; scales: [rows]. kPer divides the
/// features, and rows are aligned to kPer elements.
template <typename T, int kPer>
__global__ void __launch_bounds__(kMaxThreads)
    QuantiseRows(const T* rows, int64_t stride, int features, uint8_t* codes, float* scales, bool given) {
  constexpr int kHeld = 4;
  __shared__ unsigned scratch[33];
  const int begin = static_cast<int>(threadIdx.x) * kPer;
  const int step = static_cast<int>(blockDim.x) * kPer;
  ReleaseSuccessors();
  WaitForPredecessors();
  const T* const x = rows + blockIdx.x * stride;
  Vector<T, kPer> held[kHeld];
  /// Calls function(i, vector) for each of the thread's vectors.
  const auto visit = [&](const auto& function) {
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      const int i = begin + h * step;
      if (i < features) function(i, held[h]);
    }
    for (int i = begin + kHeld * step; i < features; i += step) function(i, Load<kPer>(x + i));
  };
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    if (begin + h * step < features) held[h] = Load<kPer>(x + begin + h * step);
  }
  unsigned largest = 0;
  visit([&](int /*i*/, const Vector<T, kPer>& vector) { largest = LargestBits(vector, largest); });
  largest = BlockMax(largest, scratch);
  const RowScale row = ScaleFor(largest, given ? scales + blockIdx.x : nullptr);
  uint8_t* const to = codes + static_cast<int64_t>(blockIdx.x) * features;
  visit([&](int i, const Vector<T, kPer>& vector) { StoreAsCodes(vector, row.factor, to + i); });
  __syncthreads();  // all have read a given scale
  if (threadIdx.x == 0) scales[blockIdx.x] = row.scale;
}

/// A block per row, at most kMaxThreads threads. Reads gates and ups, writes out, codes and a scale; what of a row is
/// beyond kHeld vectors for each thread is read again from out. Rows are aligned to 16 bytes.
template <typename T>
__global__ void __launch_bounds__(kMaxThreads)
    ActivateRows(Activation activation, const T* gate_up, int64_t stride, T* rows, int64_t rows_stride, int features,
                 uint8_t* codes, float* scales) {
  constexpr int kHeld = 4;
  constexpr int kPer = kPerVector<T>;
  __shared__ unsigned scratch[33];
  const int begin = static_cast<int>(threadIdx.x) * kPer;
  const int step = static_cast<int>(blockDim.x) * kPer;
  ReleaseSuccessors();
  WaitForPredecessors();
  const T* const gates = gate_up + blockIdx.x * stride;
  T* const out = rows + blockIdx.x * rows_stride;
  unsigned largest = 0;
  const auto activate = [&](int i) {
    const auto gate = Load<kPer>(gates + i);
    const auto up = Load<kPer>(gates + features + i);
    Vector<T, kPer> result;
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      result.values[j] = FromFloat<T>(Apply<T>(activation, ToFloat(gate.values[j])) * ToFloat(up.values[j]));
    }
    Store(out + i, result);
    largest = LargestBits(result, largest);
    return result;
  };
  Vector<T, kPer> held[kHeld];
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    if (begin + h * step < features) held[h] = activate(begin + h * step);
  }
  for (int i = begin + kHeld * step; i < features; i += step) (void)activate(i);
  const RowScale row = ScaleFor(BlockMax(largest, scratch), nullptr);
  uint8_t* const to = codes + static_cast<int64_t>(blockIdx.x) * features;
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const int i = begin + h * step;
    if (i < features) StoreAsCodes(held[h], row.factor, to + i);
  }
  for (int i = begin + kHeld * step; i < features; i += step) {
    StoreAsCodes(Load<kPer>(out + i), row.factor, to + i);
  }
  if (threadIdx.x == 0) scales[blockIdx.x] = row.scale;
}

/// Grid: rows x blocks of kFinishThreads columns. Reads sums and, with `adds`, y; writes y.
template <typename Y>
__global__ void __launch_bounds__(kFinishThreads)
    FinishRows(const ScaledSums sums, const float* bias, bool adds, Y* y, int64_t stride, int features) {
  ReleaseSuccessors();
  WaitForPredecessors();
  const int64_t row = blockIdx.x;
  const int column = static_cast<int>(blockIdx.y * kFinishThreads + threadIdx.x);
  if (column >= features) return;
  float value = sums.sums[row * sums.stride + column] * sums.row_scales[row] * sums.column_scales[column];
  if (bias != nullptr) value += bias[column];
  Y* const to = y + row * stride + column;
  *to = FromFloat<Y>(adds ? ToFloat(*to) + value : value);
}

/// Four vectors for a thread.
dim3 ThreadsFor(int64_t vectors) {
  const int64_t warps = std::clamp<int64_t>((vectors / 4 + 31) / 32, 1, kMaxThreads / 32);
  return {static_cast<unsigned>(32 * warps)};
}

}  // namespace

bool ActivateAndQuantise(const LaunchOn& on, Activation activation, TensorView gate_up, TensorView out, void* codes,
                         float* scales) {
  const int64_t features = out.row_elements();
  if (!Vectorizable(gate_up, features) || !Vectorizable(out, features)) return false;
  DispatchDevice(out.dtype(), [&](auto zero) {
    using T = decltype(zero);
    Launch(on, &ActivateRows<T>, dim3(static_cast<unsigned>(out.rows())), ThreadsFor(features / kPerVector<T>), 0,
           activation, Pointer<T>(gate_up), gate_up.row_stride(), Pointer<T>(out), out.row_stride(),
           static_cast<int>(features), static_cast<uint8_t*>(codes), scales);
  });
  return true;
}

void Quantise(const LaunchOn& on, TensorView x, void* codes, float* scales, bool given) {
  const int64_t features = x.row_elements();
  DispatchDevice(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const bool vectors = Vectorizable(x, features);
    const int64_t per = vectors ? kPerVector<T> : 1;
    const auto kernel = vectors ? &QuantiseRows<T, kPerVector<T>> : &QuantiseRows<T, 1>;
    Launch(on, kernel, dim3(static_cast<unsigned>(x.rows())), ThreadsFor(features / per), 0, Pointer<T>(x),
           x.row_stride(), static_cast<int>(features), static_cast<uint8_t*>(codes), scales, given);
  });
}

void FinishSums(const LaunchOn& on, const ScaledSums& sums, const float* bias, bool adds, TensorView y) {
  const int64_t features = y.row_elements();
  const dim3 grid(static_cast<unsigned>(y.rows()),
                  static_cast<unsigned>((features + kFinishThreads - 1) / kFinishThreads));
  DispatchDevice(y.dtype(), [&](auto zero) {
    using Y = decltype(zero);
    Launch(on, &FinishRows<Y>, grid, dim3(kFinishThreads), 0, sums, bias, adds, Pointer<Y>(y), y.row_stride(),
           static_cast<int>(features));
  });
}

}  // namespace runahead::cuda
