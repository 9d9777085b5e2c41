// What happens to each element by itself: sums, activations, the soft cap.
#include "ops/cuda/activation.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr int kThreads = 256;

struct Sum {
  template <typename T>
  static __device__ float Of(float a, float b) {
    return a + b;
  }
};
template <Activation kActivation>
struct Gate {
  template <typename T>
  static __device__ float Of(float gate, float up) {
    return Apply<kActivation, T>(gate) * up;
  }
};
template <Activation kActivation>
struct Act {
  template <typename T>
  static __device__ float Of(float x, float /*unused*/) {
    return Apply<kActivation, T>(x);
  }
};

/// A matrix's memory.
template <typename T>
struct Matrix {
  T* data;
  int64_t stride;
};

/// out = Operation(a, b) by elements. Grid: rows x blocks of kThreads * kPer columns. Reads a and b, writes out. kPer
/// divides the features, and rows are aligned to kPer elements. out may be a or b.
template <typename T, int kPer, typename Operation>
__global__ void __launch_bounds__(kThreads)
    Combine(const Matrix<const T> a, const Matrix<const T> b, const Matrix<T> out, int features) {
  ReleaseSuccessors();
  WaitForPredecessors();
  const int64_t row = blockIdx.x;
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x) * kPer;
  if (column >= features) return;
  const auto left = Load<kPer>(a.data + row * a.stride + column);
  const auto right = Load<kPer>(b.data + row * b.stride + column);
  Vector<T, kPer> result;
#pragma unroll
  for (int j = 0; j < kPer; ++j) {
    result.values[j] = FromFloat<T>(Operation::template Of<T>(ToFloat(left.values[j]), ToFloat(right.values[j])));
  }
  Store(out.data + row * out.stride + column, result);
}

template <typename Operation>
void CombineAny(const LaunchOn& on, TensorView a, TensorView b, TensorView out) {
  const int64_t features = out.row_elements();
  DispatchDevice(out.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const bool vectors = Vectorizable(a, features) && Vectorizable(b, features) && Vectorizable(out, features);
    const int64_t columns = static_cast<int64_t>(kThreads) * (vectors ? kPerVector<T> : 1);
    const auto kernel = vectors ? &Combine<T, kPerVector<T>, Operation> : &Combine<T, 1, Operation>;
    const dim3 grid(static_cast<unsigned>(out.rows()), static_cast<unsigned>((features + columns - 1) / columns));
    Launch(on, kernel, grid, dim3(kThreads), 0, Matrix<const T>{Pointer<T>(a), a.row_stride()},
           Matrix<const T>{Pointer<T>(b), b.row_stride()}, Matrix<T>{Pointer<T>(out), out.row_stride()},
           static_cast<int>(features));
  });
}

template <template <Activation> typename Operation>
void ActivateAny(const LaunchOn& on, Activation activation, TensorView a, TensorView b, TensorView out) {
  switch (activation) {
    case Activation::kSilu:
      return CombineAny<Operation<Activation::kSilu>>(on, a, b, out);
    case Activation::kGelu:
      return CombineAny<Operation<Activation::kGelu>>(on, a, b, out);
    case Activation::kGeluTanh:
      return CombineAny<Operation<Activation::kGeluTanh>>(on, a, b, out);
    case Activation::kRelu:
      return CombineAny<Operation<Activation::kRelu>>(on, a, b, out);
    case Activation::kReluSquared:
      return CombineAny<Operation<Activation::kReluSquared>>(on, a, b, out);
  }
}

/// Grid: rows x blocks of kThreads columns. Reads and writes x.
__global__ void __launch_bounds__(kThreads) SoftcapRows(const Matrix<float> x, int features, float cap) {
  ReleaseSuccessors();
  WaitForPredecessors();
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (column >= features) return;
  float& value = x.data[blockIdx.x * x.stride + column];
  value = cap * tanhf(value / cap);
}

/// Grid: rows x blocks of kThreads vectors. Reads and writes out. sums: [q_heads, sums_stride].
template <typename T>
__global__ void __launch_bounds__(kThreads) ShareWithSinks(const float* sums, int64_t sums_stride, const float* sinks,
                                                           const Matrix<T> out, int features, int head_dim) {
  ReleaseSuccessors();
  WaitForPredecessors();
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x) * kPerVector<T>;
  if (column >= features) return;
  const int head = column / head_dim;
  const float share = 1 / (1 + expf(sinks[head] - sums[head * sums_stride + blockIdx.x]));
  T* const at = out.data + blockIdx.x * out.stride + column;
  auto values = Load<kPerVector<T>>(at);
#pragma unroll
  for (T& value : values.values) value = FromFloat<T>(share * ToFloat(value));
  Store(at, values);
}

}  // namespace

void Add(const LaunchOn& on, TensorView x, TensorView delta) { CombineAny<Sum>(on, x, delta, x); }

void GatedActivation(const LaunchOn& on, Activation activation, TensorView gate_up, TensorView out) {
  const int64_t features = out.row_elements();
  ActivateAny<Gate>(on, activation, gate_up.Columns(0, features), gate_up.Columns(features, 2 * features), out);
}

void Activate(const LaunchOn& on, Activation activation, TensorView x, TensorView out) {
  ActivateAny<Act>(on, activation, x, x, out);
}

void AddSinks(const LaunchOn& on, TensorView sums, TensorView sinks, TensorView out) {
  const auto features = static_cast<int>(out.row_elements());
  DispatchDevice(out.dtype(), [&](auto zero) {
    using T = decltype(zero);
    CHECK(out.shape()[2] % kPerVector<T> == 0 && Vectorizable(out, features));
    constexpr int kColumns = kThreads * kPerVector<T>;
    const dim3 grid(static_cast<unsigned>(out.rows()), static_cast<unsigned>((features + kColumns - 1) / kColumns));
    Launch(on, &ShareWithSinks<T>, grid, dim3(kThreads), 0, Pointer<float>(sums), sums.row_stride(),
           Pointer<float>(sinks), Matrix<T>{Pointer<T>(out), out.row_stride()}, features,
           static_cast<int>(out.shape()[2]));
  });
}

void Softcap(const LaunchOn& on, TensorView x, float cap) {
  const auto features = static_cast<int>(x.row_elements());
  const dim3 grid(static_cast<unsigned>(x.rows()), static_cast<unsigned>((features + kThreads - 1) / kThreads));
  Launch(on, &SoftcapRows, grid, dim3(kThreads), 0, Matrix<float>{Pointer<float>(x), x.row_stride()}, features, cap);
}

}  // namespace runahead::cuda
