// One row times a weight matrix: what decoding does most, at the speed the weights can be read.
#include <algorithm>

#include "ops/cuda/activation.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
// A lane has kStages * kUnroll 16-byte reads of the weights under way: 64 KB for the 8 warps of a multiprocessor,
// twice what its share of the memory's rate needs at a latency of a microsecond.
constexpr int kUnroll = 4;
constexpr int kStages = 4;
// Few, so that the next matrix's blocks find room beside them and have their first weights there when x is.
constexpr int kBlocksPerMultiprocessor = 2;
constexpr size_t kMostSharedBytes = 96 * 1024;  // what a block of any GPU may have

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

/// y = finish(x W^T + b).
template <typename T, typename Y>
struct Job {
  const T* x;         // [in_features]
  const T* weights;   // [matrices * outputs, in_features]
  const float* bias;  // [matrices * outputs], or null
  Y* y;               // [outputs]
  int in_features;
  int outputs;
  bool activated;
  Activation activation;
};

/// The output `row` from its sums over each matrix: one, or a gate and what it gates.
template <int kMatrices, typename T, typename Y>
__device__ void Finish(const Job<T, Y>& job, int row, float (&sums)[kMatrices]) {
#pragma unroll
  for (int m = 0; m < kMatrices; ++m) {
    if (job.bias != nullptr) sums[m] += job.bias[row + m * job.outputs];
  }
  float value = sums[0];
  if (job.activated) {  // of what the product is when it exists
    value = Apply<T>(job.activation, ToFloat(FromFloat<T>(value)));
    if constexpr (kMatrices == 2) value *= ToFloat(FromFloat<T>(sums[1]));
  }
  job.y[row] = FromFloat<Y>(value);
}

/// Reads the rows of a warp one after the other, kUnroll vectors a lane at a time.
template <typename T, int kMatrices, int kShare>
struct Reader {
  static constexpr int kStep = 32 * kShare * kPerVector<T>;  // elements that the warps of a row read at once
  static constexpr int kChunk = kUnroll * kStep;

  const T* weights;
  int in_features;
  int outputs;
  int own;       // the lane's first element of a row
  int row;       // output of visit 0
  int row_step;  // from one visit of a matrix to the next
  int visits;    // rows, matrices counted apart
  int visit = 0;
  int begin = 0;  // of the chunk, in the row
  const T* from = nullptr;

  __device__ void Point() {
    const int64_t at = row + visit / kMatrices * row_step + visit % kMatrices * outputs;
    from = weights + at * in_features + own;
  }

  __device__ void Fetch(uint4 (&into)[kUnroll]) {
    if (visit >= visits) return;
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = begin + u * kStep;
      into[u] = own + i < in_features ? LoadOnce(from + i) : make_uint4(0, 0, 0, 0);
    }
    begin += kChunk;
    if (begin < in_features) return;
    begin = 0;
    if (++visit < visits) Point();
  }
};

/// Grid: at most as many blocks as are resident with kBlocksPerMultiprocessor; kThreads threads. kShare warps of a
/// block share a row, and a block takes every gridDim'th set of kWarps / kShare rows. Reads the weights once:
/// kMatrices * outputs * in_features elements. Their first kStages chunks are on the way before the kernel that makes
/// x has ended. Shared memory: x, padded with zeros to whole chunks, and kWarps floats for each visit. Rows of the
/// weights and x are aligned to 16 bytes.
template <typename T, typename Y, int kMatrices, int kShare>
__global__ void __launch_bounds__(kThreads, 2 * kBlocksPerMultiprocessor) RowTimesMatrix(const Job<T, Y> job) {
  using Rows = Reader<T, kMatrices, kShare>;
  constexpr int kRows = kWarps / kShare;  // of a block at a time
  extern __shared__ uint4 memory[];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int own = (warp % kShare * 32 + lane) * kPerVector<T>;
  const int first = static_cast<int>(blockIdx.x) * kRows;
  const int row = first + warp / kShare;
  const int row_step = static_cast<int>(gridDim.x) * kRows;
  const int visits = row < job.outputs ? ((job.outputs - 1 - row) / row_step + 1) * kMatrices : 0;
  Rows rows{job.weights, job.in_features, job.outputs, own, row, row_step, visits};
  rows.Point();
  uint4 ring[kStages][kUnroll];
#pragma unroll
  for (int stage = 0; stage < kStages; ++stage) rows.Fetch(ring[stage]);
  ReleaseSuccessors();
  WaitForPredecessors();

  const int padded = (job.in_features + Rows::kChunk - 1) / Rows::kChunk * Rows::kChunk;
  T* const x = reinterpret_cast<T*>(memory);
  float* const sums = reinterpret_cast<float*>(x + padded);  // [visits, kWarps]
  for (int i = static_cast<int>(threadIdx.x) * kPerVector<T>; i < padded; i += kThreads * kPerVector<T>) {
    *reinterpret_cast<uint4*>(x + i) =
        i < job.in_features ? *reinterpret_cast<const uint4*>(job.x + i) : make_uint4(0, 0, 0, 0);
  }
  __syncthreads();

  float partial[2] = {};
  int visit = 0;
  int begin = own;
  while (visit < visits) {
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) {
      if (visit >= visits) break;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const uint4 operand = *reinterpret_cast<const uint4*>(x + begin + u * Rows::kStep);
        partial[u % 2] = Dot<T>(ring[stage][u], operand, partial[u % 2]);
      }
      rows.Fetch(ring[stage]);
      begin += Rows::kChunk;
      if (begin - own < job.in_features) continue;
      const float sum = WarpSum(partial[0] + partial[1]);
      if (lane == 0) sums[visit * kWarps + warp] = sum;
      partial[0] = 0;
      partial[1] = 0;
      begin = own;
      ++visit;
    }
  }
  __syncthreads();

  for (int i = static_cast<int>(threadIdx.x);; i += kThreads) {
    const int round = i / kRows;
    const int output = first + i % kRows + round * row_step;
    if (output >= job.outputs) break;
    float totals[kMatrices] = {};
#pragma unroll
    for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
      for (int s = 0; s < kShare; ++s) totals[m] += sums[(round * kMatrices + m) * kWarps + i % kRows * kShare + s];
    }
    Finish<kMatrices>(job, output, totals);
  }
}

/// A warp per output, for any size and alignment.
template <typename T, typename Y, int kMatrices>
__global__ void __launch_bounds__(kThreads) RowTimesAny(const Job<T, Y> job) {
  ReleaseSuccessors();
  WaitForPredecessors();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / 32);
  if (row >= job.outputs) return;
  float sums[kMatrices] = {};
#pragma unroll
  for (int m = 0; m < kMatrices; ++m) {
    const T* const own = job.weights + (static_cast<int64_t>(row) + m * job.outputs) * job.in_features;
    for (int i = lane; i < job.in_features; i += 32) sums[m] += ToFloat(own[i]) * ToFloat(job.x[i]);
    sums[m] = WarpSum(sums[m]);
  }
  if (lane == 0) Finish<kMatrices>(job, row, sums);
}

/// How a launch of RowTimesMatrix cuts its work.
struct Cut {
  unsigned blocks = 0;
  size_t shared_bytes = 0;
  double fullness = 0;  // of the reads that the multiprocessors could have under way
};

template <typename T, int kMatrices, int kShare>
Cut CutFor(int64_t in_features, int64_t outputs, int multiprocessors) {
  constexpr int64_t kRows = kWarps / kShare;
  constexpr int64_t kChunk = Reader<T, kMatrices, kShare>::kChunk;
  const int64_t sets = (outputs + kRows - 1) / kRows;
  const int64_t most = int64_t{kBlocksPerMultiprocessor} * multiprocessors;
  const int64_t blocks = std::min(sets, most);
  const int64_t rounds = (sets + blocks - 1) / blocks;
  const int64_t padded = (in_features + kChunk - 1) / kChunk * kChunk;
  const auto shared_bytes =
      static_cast<size_t>(padded) * sizeof(T) + static_cast<size_t>(rounds * kMatrices * kWarps) * sizeof(float);
  return {static_cast<unsigned>(blocks), shared_bytes,
          static_cast<double>(outputs * in_features) / static_cast<double>(rounds * most * kRows * padded)};
}

template <typename T, typename Y, int kMatrices>
void MultiplyRowTyped(const LaunchOn& on, const Job<T, Y>& job) {
  constexpr double kWorthSharing = 1.25;  // fewer reads than could be suffice; a row is best read by one warp
  const bool vectors = job.in_features % kPerVector<T> == 0 && reinterpret_cast<uintptr_t>(job.x) % 16 == 0 &&
                       reinterpret_cast<uintptr_t>(job.weights) % 16 == 0;
  const Cut alone = CutFor<T, kMatrices, 1>(job.in_features, job.outputs, on.multiprocessors);
  const Cut shared = CutFor<T, kMatrices, kWarps>(job.in_features, job.outputs, on.multiprocessors);
  if (!vectors || std::max(alone.shared_bytes, shared.shared_bytes) > kMostSharedBytes) {
    const auto blocks = static_cast<unsigned>((job.outputs + kWarps - 1) / kWarps);
    return Launch(on, &RowTimesAny<T, Y, kMatrices>, dim3(blocks), dim3(kThreads), 0, job);
  }
  if (shared.fullness > kWorthSharing * alone.fullness) {
    return Launch(on, &RowTimesMatrix<T, Y, kMatrices, kWarps>, dim3(shared.blocks), dim3(kThreads),
                  shared.shared_bytes, job);
  }
  Launch(on, &RowTimesMatrix<T, Y, kMatrices, 1>, dim3(alone.blocks), dim3(kThreads), alone.shared_bytes, job);
}

template <typename T, typename Y>
Job<T, Y> JobOf(const RowProduct& product, TensorView y) {
  return {static_cast<const T*>(product.x.data()),
          static_cast<const T*>(product.weights),
          product.bias,
          Pointer<Y>(y),
          static_cast<int>(product.x.row_elements()),
          static_cast<int>(y.row_elements()),
          false,
          Activation::kSilu};
}

}  // namespace

void MultiplyRow(const LaunchOn& on, const RowProduct& product, TensorView y) {
  DispatchDevice(product.x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if (y.dtype() == product.x.dtype()) return MultiplyRowTyped<T, T, 1>(on, JobOf<T, T>(product, y));
    CHECK(y.dtype() == DType::kF32);
    MultiplyRowTyped<T, float, 1>(on, JobOf<T, float>(product, y));
  });
}

void MultiplyRowAndActivate(const LaunchOn& on, const RowProduct& product, Activation activation, bool gated,
                            TensorView y) {
  CHECK(y.dtype() == product.x.dtype());
  DispatchDevice(product.x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    Job<T, T> job = JobOf<T, T>(product, y);
    job.activated = true;
    job.activation = activation;
    if (gated) return MultiplyRowTyped<T, T, 2>(on, job);
    MultiplyRowTyped<T, T, 1>(on, job);
  });
}

}  // namespace runahead::cuda
