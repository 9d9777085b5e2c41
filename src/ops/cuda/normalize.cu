// RMS norm (Zhang and Sennrich 2019) and layer norm (Ba et al. 2016) of rows.
#include <algorithm>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/quantise.cuh"

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
  bool centred;    // layer norm
  uint8_t* codes;  // [rows, features], e4m3 of the results; where these are asked for
  float* scales;   // [rows]
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
/// elements. kCoded: writes codes and scales too.
template <typename T, int kPer, bool kCoded>
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
      Vector<T, kPer> vector = Load<kPer>(x + i);
      function(i, vector);
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
  unsigned largest = 0;
  visit([&](int i, Vector<T, kPer>& vector) {
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
    if constexpr (kCoded) {
      largest = LargestBits(result, largest);
      vector = result;
    }
  });
  if constexpr (kCoded) {
    __shared__ unsigned words[33];
    const RowScale row = ScaleFor(BlockMax(largest, words), nullptr);
    uint8_t* const to = rows.codes + static_cast<int64_t>(blockIdx.x) * rows.features;
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      const int i = begin + h * step;
      if (i < rows.features) StoreAsCodes(held[h], row.factor, to + i);
    }
    for (int i = begin + kHeld * step; i < rows.features; i += step) {
      StoreAsCodes(Load<kPer>(out + i), row.factor, to + i);
    }
    if (threadIdx.x == 0) rows.scales[blockIdx.x] = row.scale;
  }
}

template <typename T>
Rows<T> RowsOf(TensorView x, const Norm& norm, TensorView out) {
  Rows<T> rows{};
  rows.x = Pointer<T>(x);
  rows.x_stride = x.row_stride();
  rows.out = Pointer<T>(out);
  rows.out_stride = out.row_stride();
  rows.weight = Pointer<float>(norm.weight.view);
  rows.bias = Pointer<float>(norm.bias.view);
  rows.features = static_cast<int>(x.row_elements());
  rows.epsilon = norm.epsilon;
  rows.centred = norm.kind == NormKind::kLayer;
  return rows;
}

/// Whether all that a norm touches can be moved by vectors.
bool HasVectors(TensorView x, const Norm& norm, TensorView out) {
  const auto aligned = [](const TensorView& view) { return reinterpret_cast<uintptr_t>(view.data()) % 16 == 0; };
  return Vectorizable(x, x.row_elements()) && Vectorizable(out, x.row_elements()) && aligned(norm.weight.view) &&
         aligned(norm.bias.view);
}

/// Many rows are fastest by many small blocks, one row by many threads.
dim3 ThreadsFor(int64_t vectors, int64_t rows) {
  const int64_t per_thread = rows > 1 ? 4 : 1;
  const int64_t warps = std::clamp<int64_t>((vectors / per_thread + 31) / 32, 1, kMaxThreads / 32);
  return {static_cast<unsigned>(32 * warps)};
}

}  // namespace

void Normalize(const LaunchOn& on, TensorView x, const Norm& norm, TensorView out) {
  DispatchDevice(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const bool vectors = HasVectors(x, norm, out);
    const int64_t per = vectors ? kPerVector<T> : 1;
    const auto kernel = vectors ? &NormalizeRows<T, kPerVector<T>, false> : &NormalizeRows<T, 1, false>;
    Launch(on, kernel, dim3(static_cast<unsigned>(x.rows())), ThreadsFor(x.row_elements() / per, x.rows()), 0,
           RowsOf<T>(x, norm, out));
  });
}

bool NormalizeAndQuantise(const LaunchOn& on, TensorView x, const Norm& norm, TensorView out, void* codes,
                          float* scales) {
  if (!HasVectors(x, norm, out)) return false;
  DispatchDevice(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    Rows<T> rows = RowsOf<T>(x, norm, out);
    rows.codes = static_cast<uint8_t*>(codes);
    rows.scales = scales;
    Launch(on, &NormalizeRows<T, kPerVector<T>, true>, dim3(static_cast<unsigned>(x.rows())),
           ThreadsFor(x.row_elements() / kPerVector<T>, x.rows()), 0, rows);
  });
  return true;
}

}  // namespace runahead::cuda
