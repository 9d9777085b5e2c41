// Changes of dtype, integers from the host, and random numbers to measure with.
#include "ops/cuda/launch.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr int kThreads = 256;

unsigned Blocks(int64_t elements) { return static_cast<unsigned>((elements + kThreads - 1) / kThreads); }

/// A thread per element, read once and written once.
template <typename From, typename To>
__global__ void __launch_bounds__(kThreads) ConvertElements(const From* from, To* to, int64_t elements) {
  WaitForPredecessors();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < elements) to[i] = FromFloat<To>(ToFloat(from[i]));
}

/// A thread per element, written once. The bits come from a hash of the index (the finaliser of MurmurHash3).
template <typename T>
__global__ void __launch_bounds__(kThreads) RandomElements(T* to, int64_t elements, uint32_t seed) {
  WaitForPredecessors();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= elements) return;
  uint32_t bits = static_cast<uint32_t>(i) * 0x9e3779b9u + seed;
  bits = (bits ^ (bits >> 16)) * 0x85ebca6bu;
  bits = (bits ^ (bits >> 13)) * 0xc2b2ae35u;
  bits ^= bits >> 16;
  to[i] = FromFloat<T>(static_cast<float>(static_cast<int32_t>(bits)) * 0x1p-31f);
}

constexpr int kMostIntegers = 16;
struct Integers {
  int32_t values[kMostIntegers];
};

/// One block, a thread per integer.
__global__ void __launch_bounds__(kMostIntegers) StoreIntegers(const Integers integers, int count, int32_t* to) {
  WaitForPredecessors();
  const int i = static_cast<int>(threadIdx.x);
  if (i < count) to[i] = integers.values[i];
}

}  // namespace

void WriteIntegers(const LaunchOn& on, const int32_t* values, int count, int32_t* to) {
  CHECK_LE(count, kMostIntegers);
  Integers integers{};
  for (int i = 0; i < count; ++i) integers.values[i] = values[i];
  Launch(on, &StoreIntegers, dim3(1), dim3(kMostIntegers), 0, integers, count, to);
}

void Convert(const LaunchOn& on, const void* from, DType from_dtype, void* to, DType to_dtype, int64_t elements) {
  if (elements == 0) return;
  DispatchDevice(from_dtype, [&](auto from_zero) {
    DispatchDevice(to_dtype, [&](auto to_zero) {
      using From = decltype(from_zero);
      using To = decltype(to_zero);
      Launch(on, &ConvertElements<From, To>, dim3(Blocks(elements)), dim3(kThreads), 0,
             static_cast<const From*>(from), static_cast<To*>(to), elements);
    });
  });
}

void FillRandom(const LaunchOn& on, void* to, DType dtype, int64_t elements, uint32_t seed) {
  if (elements == 0) return;
  DispatchDevice(dtype, [&](auto zero) {
    using T = decltype(zero);
    Launch(on, &RandomElements<T>, dim3(Blocks(elements)), dim3(kThreads), 0, static_cast<T*>(to), elements, seed);
  });
}

}  // namespace runahead::cuda
