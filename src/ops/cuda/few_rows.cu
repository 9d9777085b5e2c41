// A few rows times a weight matrix: what a step of a few answers does most, on the tensor cores at the speed the
// weights can be read. Their way to the multiplications is that of attention's keys (attention_tiles.cuh), with the
// rows as queries. Like the product of one row, kernels follow each other without a pause: the first weights are on
// their way before the rows are there.
#include <algorithm>

#include "ops/cuda/activation.cuh"
#include "ops/cuda/attention_tiles.cuh"

namespace runahead::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kTileRows = 16;                // rows of the weights of one multiplication
constexpr int kChunk = 64;                   // inputs that a warp reads of a row at a time
constexpr int kStep = kWarps * kChunk;       // inputs that a block reads of a row at a time
constexpr int kStages = 4;                   // chunks that a warp has under way
constexpr int kBlocksPerMultiprocessor = 2;  // all that the registers have room for, as for one row
constexpr size_t kMostSharedBytes = 96 * 1024;

enum class Finishing : unsigned char { kStore, kAdd, kActivate };

/// y = finish(x W^T + b). A tile is 16 rows of the weights, or with two matrices, a gate and what it gates, 8 of
/// each.
template <typename T, typename Y>
struct Job {
  const T* x;  // [rows, in_features]
  int64_t x_stride;
  const T* weights;   // [matrices * outputs, in_features]
  const float* bias;  // [matrices * outputs], or null
  Y* y;               // [rows, outputs]
  int64_t y_stride;
  int rows;
  int in_features;
  int outputs;
  int tiles;
  Finishing finishing;
  Activation activation;
};

/// The weights that a warp reads: of each tile of its block the chunks that are its own.
template <typename T, int kMatrices>
struct Reader {
  const T* weights;
  int in_features;
  int outputs;
  int first;  // the warp's first input
  int own;    // the lane's first input
  int g;
  int tile;
  int tile_step;
  int visits;
  int visit = 0;
  int begin = 0;  // start of the chunk, from `own` on
  const T* from[2] = {};

  __device__ void Point() {
    const int at = tile + visit * tile_step;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = kMatrices == 1 ? kTileRows * at + 8 * half + g : 8 * at + g;
      const int64_t stored = kMatrices == 1 ? row : int64_t{half} * outputs + row;
      from[half] = row < outputs ? weights + stored * in_features + own : nullptr;
    }
  }

  __device__ void Fetch(uint4 (&into)[2][2]) {
    if (visit >= visits) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int i = begin + 32 * j;
        into[half][j] =
            from[half] != nullptr && own + i < in_features ? tiles::LoadOnce(from[half] + i) : make_uint4(0, 0, 0, 0);
      }
    }
    begin += kStep;
    if (first + begin < in_features) return;
    begin = 0;
    if (++visit < visits) Point();
  }
};

/// An output of one row from its sums over each matrix. Each step rounds to T, as kernels one after the other would.
template <int kMatrices, typename T, typename Y>
__device__ void Finish(const Job<T, Y>& job, int row, int output, float (&sums)[kMatrices]) {
#pragma unroll
  for (int m = 0; m < kMatrices; ++m) {
    if (job.bias != nullptr) sums[m] += job.bias[m * job.outputs + output];
  }
  Y* const y = job.y + row * job.y_stride + output;
  float value = sums[0];
  switch (job.finishing) {
    case Finishing::kStore:
      break;
    case Finishing::kAdd:
      value = ToFloat(*y) + ToFloat(FromFloat<T>(value));
      break;
    case Finishing::kActivate:
      value = Apply<T>(job.activation, ToFloat(FromFloat<T>(value)));
      if constexpr (kMatrices == 2) value *= ToFloat(FromFloat<T>(sums[1]));
      break;
  }
  *y = FromFloat<Y>(value);
}

/// Grid: at most as many blocks as are resident with kBlocksPerMultiprocessor; kThreads threads. A block takes every
/// gridDim'th tile, whose inputs its warps share. Reads the weights once, and x once for each tile. Shared memory: 16
/// floats for each visit, warp and row. Rows of the weights and of x are aligned to 16 bytes; at most 8 kColumns
/// rows.
template <typename T, typename Y, int kMatrices, int kColumns>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor) RowsTimesMatrix(const Job<T, Y> job) {
  extern __shared__ float sums[];  // [visits, warps, 8 kColumns, kTileRows]
  constexpr int kPart = 8 * kColumns * kTileRows;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const int first = warp * kChunk;
  const int own = first + 8 * t;
  const int tile = static_cast<int>(blockIdx.x);
  const int tile_step = static_cast<int>(gridDim.x);
  const int block_visits = tile < job.tiles ? (job.tiles - 1 - tile) / tile_step + 1 : 0;
  const int visits = first < job.in_features ? block_visits : 0;  // a warp has inputs of all tiles or of none
  Reader<T, kMatrices> reader{job.weights, job.in_features, job.outputs, first, own, g, tile, tile_step, visits};
  if (visits > 0) reader.Point();
  uint4 ring[kStages][2][2];
#pragma unroll
  for (int stage = 0; stage < kStages; ++stage) reader.Fetch(ring[stage]);
  ReleaseSuccessors();
  WaitForPredecessors();

  uint4 x[2][kColumns][2];  // of this chunk and of the next one
  const auto load = [&](int begin, uint4(&into)[kColumns][2]) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const int row = 8 * n + g;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int i = own + begin + 32 * j;
        into[n][j] = row < job.rows && i < job.in_features
                         ? *reinterpret_cast<const uint4*>(job.x + row * job.x_stride + i)
                         : make_uint4(0, 0, 0, 0);
      }
    }
  };
  float partial[kColumns][4] = {};
  int visit = 0;
  int begin = 0;
  load(0, x[0]);
  while (visit < visits) {
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) {
      if (visit >= visits) break;
      const bool ends = first + begin + kStep >= job.in_features;
      load(ends ? 0 : begin + kStep, x[(stage + 1) % 2]);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const uint4& a = ring[stage][0][j];
        const uint4& b = ring[stage][1][j];
#pragma unroll
        for (int n = 0; n < kColumns; ++n) {
          const uint4& row = x[stage % 2][n][j];
          tiles::Multiply<T>(a.x, b.x, a.y, b.y, row.x, row.y, partial[n]);
          tiles::Multiply<T>(a.z, b.z, a.w, b.w, row.z, row.w, partial[n]);
        }
      }
      reader.Fetch(ring[stage]);
      begin += kStep;
      if (!ends) continue;
      float* const part = sums + (visit * kWarps + warp) * kPart;
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          part[(8 * n + 2 * t + i % 2) * kTileRows + g + i / 2 * 8] = partial[n][i];
          partial[n][i] = 0;
        }
      }
      begin = 0;
      ++visit;
    }
  }
  __syncthreads();

  constexpr int kOutputs = kTileRows / kMatrices;  // of a tile
  const int warps = min(kWarps, (job.in_features + kChunk - 1) / kChunk);
  const int of_tile = job.rows * kOutputs;
  for (int i = static_cast<int>(threadIdx.x); i < block_visits * of_tile; i += kThreads) {
    const int at = i / of_tile;
    const int row = i % of_tile / kOutputs;
    const int output = (tile + at * tile_step) * kOutputs + i % kOutputs;
    if (output >= job.outputs) continue;
    float totals[kMatrices] = {};
    const float* const part = sums + at * kWarps * kPart + row * kTileRows + i % kOutputs;
    for (int w = 0; w < warps; ++w) {
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) totals[m] += part[w * kPart + m * 8];
    }
    Finish<kMatrices>(job, row, output, totals);
  }
}

template <typename T, typename Y, int kMatrices, int kColumns>
bool LaunchRows(const LaunchOn& on, Job<T, Y> job) {
  constexpr int kOutputs = kTileRows / kMatrices;
  job.tiles = (job.outputs + kOutputs - 1) / kOutputs;
  // As many blocks as have the same number of tiles: all end together, and fewer reads under way are still enough.
  const int most = kBlocksPerMultiprocessor * on.multiprocessors;
  const int each = (job.tiles + most - 1) / most;
  const int blocks = (job.tiles + each - 1) / each;
  const auto visits = static_cast<size_t>(each);
  const size_t shared_bytes = visits * kWarps * 8 * kColumns * kTileRows * sizeof(float);
  if (shared_bytes > kMostSharedBytes) return false;
  Launch(on, &RowsTimesMatrix<T, Y, kMatrices, kColumns>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
         shared_bytes, job);
  return true;
}

/// With as few columns of multiplications as there are rows for.
template <typename T, typename Y, int kMatrices>
bool LaunchFor(const LaunchOn& on, const Job<T, Y>& job) {
  return job.rows <= 8 ? LaunchRows<T, Y, kMatrices, 1>(on, job) : LaunchRows<T, Y, kMatrices, 2>(on, job);
}

bool Serves(const RowProduct& product) {
  const int64_t in_features = product.x.row_elements();
  return product.x.rows() <= kMostFewRows && product.x.dtype() != DType::kF32 &&
         Vectorizable(product.x, in_features) && reinterpret_cast<uintptr_t>(product.weights) % 16 == 0;
}

template <typename T, typename Y>
Job<T, Y> JobOf(const RowProduct& product, TensorView y, Finishing finishing) {
  Job<T, Y> job{};
  job.x = Pointer<T>(product.x);
  job.x_stride = product.x.row_stride();
  job.weights = static_cast<const T*>(product.weights);
  job.bias = product.bias;
  job.y = Pointer<Y>(y);
  job.y_stride = y.row_stride();
  job.rows = static_cast<int>(product.x.rows());
  job.in_features = static_cast<int>(product.x.row_elements());
  job.outputs = static_cast<int>(y.row_elements());
  job.finishing = finishing;
  return job;
}

/// Calls function(zero of the dtype of x) for a dtype of 16 bits.
template <typename Function>
bool DispatchNarrow(DType dtype, const Function& function) {
  bool done = false;
  DispatchDevice(dtype, [&](auto zero) {
    if constexpr (!std::is_same_v<decltype(zero), float>) done = function(zero);
  });
  return done;
}

}  // namespace

bool MultiplyFewRows(const LaunchOn& on, const RowProduct& product, TensorView y) {
  if (!Serves(product)) return false;
  return DispatchNarrow(product.x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if (y.dtype() == DType::kF32) return LaunchFor<T, float, 1>(on, JobOf<T, float>(product, y, Finishing::kStore));
    return LaunchFor<T, T, 1>(on, JobOf<T, T>(product, y, Finishing::kStore));
  });
}

bool MultiplyFewRowsAndAdd(const LaunchOn& on, const RowProduct& product, TensorView sum) {
  if (!Serves(product)) return false;
  return DispatchNarrow(product.x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    return LaunchFor<T, T, 1>(on, JobOf<T, T>(product, sum, Finishing::kAdd));
  });
}

bool MultiplyFewRowsAndActivate(const LaunchOn& on, const RowProduct& product, Activation activation, bool gated,
                                TensorView y) {
  if (!Serves(product)) return false;
  return DispatchNarrow(product.x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    Job<T, T> job = JobOf<T, T>(product, y, Finishing::kActivate);
    job.activation = activation;
    return gated ? LaunchFor<T, T, 2>(on, job) : LaunchFor<T, T, 1>(on, job);
  });
}

}  // namespace runahead::cuda
