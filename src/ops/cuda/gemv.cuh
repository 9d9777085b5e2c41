// One row times a weight matrix: what decoding does most, at the speed the weights can be read. The small steps
// before and after a product - the norm of its row, the rotation of heads, the residual's sum - are done by its
// blocks: between two kernels the memory rests for microseconds.
// Weights are numbers of x's type T, or e4m3 with a scale for each row.
#pragma once

#include "ops/cuda/activation.cuh"
#include "ops/cuda/fp8.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda::one_row {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
// A lane has kStages * kUnroll 16-byte reads of the weights under way: 128 KB for the warps of a multiprocessor, four
// times what its share of the memory's rate needs at a latency of a microsecond.
constexpr int kUnroll = 4;
constexpr int kStages = 4;
// All that the registers have room for. Blocks become resident wherever those before them leave room: if a product
// took less than all of it, some multiprocessors would get more of its blocks than others, take longer, and leave the
// same gaps to the product behind. The next product's blocks follow as these end, and have their first weights there
// when x is.
constexpr int kBlocksPerMultiprocessor = 2;
constexpr size_t kMostSharedBytes = 96 * 1024;  // most shared memory of a block on any supported GPU

/// 16 bytes that are read once: they take no room in the first cache, and their neighbours come along to the second.
__device__ inline uint4 LoadOnce(const void* from) {
  uint4 bytes;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(bytes.x), "=r"(bytes.y), "=r"(bytes.z), "=r"(bytes.w)
               : "l"(from));
  return bytes;
}

/// Vectors of x that meet one of the weights W.
template <typename T, typename W>
constexpr int kVectorsOfX = kPerVector<W> / kPerVector<T>;

/// Where in shared memory vector `index` of x lies. Two vectors that meet one of the weights are a warp's reads
/// apart, so that neighbouring lanes read neighbouring vectors.
template <typename T, typename W>
__device__ int PlaceOf(int index) {
  if constexpr (kVectorsOfX<T, W> == 1) return index;
  return index / 64 * 64 + index % 2 * 32 + index % 64 / 2;
}

/// sum + a . b over the elements of 16 bytes.
template <typename T>
__device__ float Dot(const uint4& a, const uint4& b, float sum) {
#pragma unroll
  for (int j = 0; j < kPerVector<T>; ++j) sum += ElementOf<T>(a, j) * ElementOf<T>(b, j);
  return sum;
}

/// Adds the products of 16 bytes of weights and what they meet of x: at x, and 32 vectors further on.
template <typename T, typename W>
__device__ void AddProducts(const uint4& weights, const uint4* x, float& even, float& odd) {
  static_assert(kVectorsOfX<T, W> == 2);
#pragma unroll
  for (int v = 0; v < 2; ++v) {
    const uint4 operand = x[32 * v];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 pair = __half22float2(PairOf(WordOf(weights, 2 * v + j / 2), j % 2));
      even += pair.x * ElementOf<T>(operand, 2 * j);
      odd += pair.y * ElementOf<T>(operand, 2 * j + 1);
    }
  }
}

/// What happens to a product. Those of two matrices: kActivate to a gate and what it gates, kRotate to the two halves
/// of a head.
enum class Finishing : unsigned char { kStore, kAdd, kActivate, kRotate };

/// Where the heads of q, k and v go, and the angles of their position.
template <typename T>
struct HeadTargets {
  T* q;  // [q_heads, head_dim]
  T* k;  // [kv_heads, head_dim]
  T* v;  // [kv_heads, head_dim]
  int q_heads;
  int kv_heads;
  const float* cosine;  // [head_dim / 2]; null: no rotation
  const float* sine;
};

/// The norm of x before the product; `weight` null: none.
template <typename T>
struct RowNorm {
  const float* weight;  // [in_features]
  const float* bias;    // [in_features], or null
  float epsilon;
  bool centred;   // layer norm
  T* normalized;  // [in_features]: the result, for others
};

/// y = finish(norm(x) W^T + b). Output r of kMatrices rows of the weights: r itself, or of two rows the first is
/// r + r / span * span and the other `span` further on. So a gate (all of them, then all that they gate) meets what
/// it gates with span = outputs, and the halves of a head meet with span = head_dim / 2.
template <typename T, typename Y, typename W>
struct Job {
  const T* x;           // [in_features]
  const W* weights;     // [matrices * outputs, in_features]
  const float* scales;  // [matrices * outputs], of e4m3 weights
  const float* bias;    // [matrices * outputs], or null
  Y* y;                 // [outputs]; not of kRotate
  int in_features;
  int outputs;
  int span;
  Finishing finishing;
  Activation activation;
  RowNorm<T> norm;
  HeadTargets<T> heads;
};

/// The row of the weights that output `output` takes from matrix m.
template <int kMatrices>
__device__ int WeightRow(int output, int m, int span) {
  if constexpr (kMatrices == 1) return output;
  return output + output / span * span + m * span;
}

/// Both halves' element of a head, rotated if it is of q or k.
template <typename T>
__device__ void FinishHead(const HeadTargets<T>& heads, int output, int half, float low, float high) {
  const int head = output / half;
  const int i = output % half;
  const int key = head - heads.q_heads;
  const int value = key - heads.kv_heads;
  T* const to = (key < 0     ? heads.q + head * 2 * half
                 : value < 0 ? heads.k + key * 2 * half
                             : heads.v + value * 2 * half) +
                i;
  const float a = ToFloat(FromFloat<T>(low));
  const float b = ToFloat(FromFloat<T>(high));
  const bool rotated = value < 0 && heads.cosine != nullptr;
  to[0] = FromFloat<T>(rotated ? a * heads.cosine[i] - b * heads.sine[i] : a);
  to[half] = FromFloat<T>(rotated ? b * heads.cosine[i] + a * heads.sine[i] : b);
}

/// An output from its sums over each matrix. Each step rounds to T, as kernels one after the other would.
template <int kMatrices, typename T, typename Y, typename W>
__device__ void Finish(const Job<T, Y, W>& job, int output, float (&sums)[kMatrices]) {
#pragma unroll
  for (int m = 0; m < kMatrices; ++m) {
    const int row = WeightRow<kMatrices>(output, m, job.span);
    if constexpr (!std::is_same_v<T, W>) sums[m] *= job.scales[row];
    if (job.bias != nullptr) sums[m] += job.bias[row];
  }
  float value = sums[0];
  switch (job.finishing) {
    case Finishing::kStore:
      break;
    case Finishing::kAdd:
      value = ToFloat(job.y[output]) + ToFloat(FromFloat<T>(value));
      break;
    case Finishing::kActivate:
      value = Apply<T>(job.activation, ToFloat(FromFloat<T>(value)));
      if constexpr (kMatrices == 2) value *= ToFloat(FromFloat<T>(sums[1]));
      break;
    case Finishing::kRotate:
      if constexpr (kMatrices == 2) FinishHead(job.heads, output, job.span, sums[0], sums[1]);
      return;
  }
  job.y[output] = FromFloat<Y>(value);
}

/// Reads the rows of a warp one after the other, kUnroll vectors a lane at a time.
template <typename W, int kMatrices, int kShare>
struct Reader {
  static constexpr int kStep = 32 * kShare * kPerVector<W>;  // elements that the warps of a row read at once
  static constexpr int kChunk = kUnroll * kStep;

  const W* weights;
  int in_features;
  int span;
  int own;       // the lane's first element of a row
  int row;       // output of visit 0
  int row_step;  // distance from one visit of a matrix to the next, rows
  int visits;    // rows, matrices counted apart
  int visit = 0;
  int begin = 0;  // start of the chunk in the row
  const W* from = nullptr;

  __device__ void Point() {
    const int at = WeightRow<kMatrices>(row + visit / kMatrices * row_step, visit % kMatrices, span);
    from = weights + int64_t{at} * in_features + own;
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

/// The weights and biases of the norm, which no kernel makes, into shared memory.
template <typename T>
__device__ void LoadGains(const RowNorm<T>& norm, int features, float* gains) {
  for (int i = 4 * static_cast<int>(threadIdx.x); i < features; i += 4 * kThreads) {
    Store(gains + i, Load<4>(norm.weight + i));
    if (norm.bias != nullptr) Store(gains + features + i, Load<4>(norm.bias + i));
  }
}

/// norm(x), in place: each thread its own vectors of x, which it loaded. The first block writes the result for
/// others.
template <typename T, typename W>
__device__ void NormalizeShared(const RowNorm<T>& norm, int features, const float* gains, uint4* x) {
  constexpr int kPer = kPerVector<T>;
  __shared__ float scratch[33];
  const auto visit = [&](const auto& function) {
    for (int i = static_cast<int>(threadIdx.x) * kPer; i < features; i += kThreads * kPer) {
      function(i, x[PlaceOf<T, W>(i / kPer)]);
    }
  };
  const auto count = static_cast<float>(features);
  float mean = 0;
  if (norm.centred) {
    float sum = 0;
    visit([&](int /*i*/, const uint4& bytes) {
#pragma unroll
      for (int j = 0; j < kPer; ++j) sum += ElementOf<T>(bytes, j);
    });
    mean = BlockSum(sum, scratch) / count;
  }
  float squares = 0;
  visit([&](int /*i*/, const uint4& bytes) {
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      const float centred = ElementOf<T>(bytes, j) - mean;
      squares += centred * centred;
    }
  });
  const float scale = 1.0f / sqrtf(BlockSum(squares, scratch) / count + norm.epsilon);
  visit([&](int i, const uint4& bytes) {
    Vector<T, kPer> result;
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      const float bias = norm.bias == nullptr ? 0.0f : gains[features + i + j];
      result.values[j] = FromFloat<T>((ElementOf<T>(bytes, j) - mean) * scale * gains[i + j] + bias);
    }
    x[PlaceOf<T, W>(i / kPer)] = *reinterpret_cast<const uint4*>(&result);
    if (blockIdx.x == 0) Store(norm.normalized + i, result);
  });
}

/// Grid: at most as many blocks as are resident with kBlocksPerMultiprocessor; kThreads threads. kShare warps of a
/// block share a row, and a block takes every gridDim'th set of kWarps / kShare rows. Reads the weights once:
/// kMatrices * outputs * in_features elements. Their first kStages chunks are on the way before the kernel that makes
/// x has ended. Shared memory: x, padded with zeros to whole chunks, kWarps floats for each visit, and with a norm
/// its weights and biases. Rows of the weights and x are aligned to 16 bytes.
template <typename T, typename Y, typename W, int kMatrices, int kShare>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor) RowTimesMatrix(const Job<T, Y, W> job) {
  using Rows = Reader<W, kMatrices, kShare>;
  constexpr int kRows = kWarps / kShare;  // rows that a block works on at a time
  extern __shared__ uint4 memory[];       // x first
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int own = (warp % kShare * 32 + lane) * kPerVector<W>;
  const int first = static_cast<int>(blockIdx.x) * kRows;
  const int row = first + warp / kShare;
  const int row_step = static_cast<int>(gridDim.x) * kRows;
  const int visits = row < job.outputs ? ((job.outputs - 1 - row) / row_step + 1) * kMatrices : 0;
  Rows rows{job.weights, job.in_features, job.span, own, row, row_step, visits};
  rows.Point();
  uint4 ring[kStages][kUnroll];
#pragma unroll
  for (int stage = 0; stage < kStages; ++stage) rows.Fetch(ring[stage]);
  ReleaseSuccessors();

  const int padded = (job.in_features + Rows::kChunk - 1) / Rows::kChunk * Rows::kChunk;
  const bool normed = job.norm.weight != nullptr;
  float* const gains =
      reinterpret_cast<float*>(memory + padded / kPerVector<T>);  // [1 or with a bias 2, in_features]
  const int gain_rows = !normed ? 0 : job.norm.bias == nullptr ? 1 : 2;
  float* const sums = gains + gain_rows * job.in_features;  // [visits, kWarps]
  if (normed) LoadGains(job.norm, job.in_features, gains);
  WaitForPredecessors();
  for (int i = static_cast<int>(threadIdx.x) * kPerVector<T>; i < padded; i += kThreads * kPerVector<T>) {
    memory[PlaceOf<T, W>(i / kPerVector<T>)] =
        i < job.in_features ? *reinterpret_cast<const uint4*>(job.x + i) : make_uint4(0, 0, 0, 0);
  }
  if (normed) {
    __syncthreads();  // the gains are there
    NormalizeShared<T, W>(job.norm, job.in_features, gains, memory);
  }
  __syncthreads();

  const uint4* const x = memory + PlaceOf<T, W>(own / kPerVector<T>);  // the lane's first vector
  float partial[2] = {};
  int visit = 0;
  int begin = 0;
  while (visit < visits) {
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) {
      if (visit >= visits) break;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const uint4* const operand = x + (begin + u * Rows::kStep) / kPerVector<T>;
        if constexpr (std::is_same_v<T, W>) {
          partial[u % 2] = Dot<T>(ring[stage][u], *operand, partial[u % 2]);
        } else {
          AddProducts<T, W>(ring[stage][u], operand, partial[0], partial[1]);
        }
      }
      rows.Fetch(ring[stage]);
      begin += Rows::kChunk;
      if (begin < job.in_features) continue;
      const float sum = WarpSum(partial[0] + partial[1]);
      if (lane == 0) sums[visit * kWarps + warp] = sum;
      partial[0] = 0;
      partial[1] = 0;
      begin = 0;
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
template <typename T, typename Y, typename W, int kMatrices>
__global__ void __launch_bounds__(kThreads) RowTimesAny(const Job<T, Y, W> job) {
  ReleaseSuccessors();
  WaitForPredecessors();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / 32);
  if (row >= job.outputs) return;
  float sums[kMatrices] = {};
#pragma unroll
  for (int m = 0; m < kMatrices; ++m) {
    const W* const own = job.weights + int64_t{WeightRow<kMatrices>(row, m, job.span)} * job.in_features;
    for (int i = lane; i < job.in_features; i += 32) sums[m] += ToFloat(own[i]) * ToFloat(job.x[i]);
    sums[m] = WarpSum(sums[m]);
  }
  if (lane == 0) Finish<kMatrices>(job, row, sums);
}

}  // namespace runahead::cuda::one_row
