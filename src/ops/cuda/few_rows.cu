// A few rows times a weight matrix: what a step of a few answers does most, on the tensor cores at the speed the
// weights can be read. Their way to the multiplications is that of attention's keys (attention_tiles.cuh), with the
// rows as queries. Like the product of one row, kernels follow each other without a pause: the first weights are on
// their way before the rows are there.
#include <algorithm>

#include "ops/cuda/activation.cuh"
#include "ops/cuda/attention_tiles.cuh"
#include "ops/cuda/fp8.cuh"

namespace runahead::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kTileRows = 16;  // rows of the weights of one multiplication
constexpr int kLoads = 2;      // 16-byte reads of a lane for a row at a time
template <typename W>
constexpr int kRead = 4 * kPerVector<W>;  // inputs that a warp reads of a row by one of them
template <typename W>
constexpr int kChunk = kLoads* kRead<W>;  // inputs that a warp reads of a row at a time
template <typename W>
constexpr int kStep = kWarps* kChunk<W>;     // inputs that a block reads of a row at a time
constexpr int kStages = 4;                   // chunks that a warp has under way
constexpr int kBlocksPerMultiprocessor = 2;  // all that the registers have room for, as for one row
constexpr size_t kMostSharedBytes = 96 * 1024;

enum class Finishing : unsigned char { kStore, kAdd, kActivate };

/// y = finish(x W^T + b). A tile is 16 rows of the weights, or with two matrices, a gate and what it gates, 8 of
/// each. W is T, or e4m3 with a scale for each row of the weights.
template <typename T, typename Y, typename W>
struct Job {
  const T* x;  // [rows, in_features]
  int64_t x_stride;
  const W* weights;     // [matrices * outputs, in_features]
  const float* scales;  // [matrices * outputs], of e4m3 weights
  const float* bias;    // [matrices * outputs], or null
  Y* y;                 // [rows, outputs]
  int64_t y_stride;
  int rows;
  int in_features;
  int outputs;
  int tiles;
  Finishing finishing;
  Activation activation;
};

/// The weights that a warp reads: of each tile of its block the chunks that are its own.
template <typename W, int kMatrices>
struct Reader {
  const W* weights;
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
  const W* from[2] = {};

  __device__ void Point() {
    const int at = tile + visit * tile_step;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = kMatrices == 1 ? kTileRows * at + 8 * half + g : 8 * at + g;
      const int64_t stored = kMatrices == 1 ? row : int64_t{half} * outputs + row;
      from[half] = row < outputs ? weights + stored * in_features + own : nullptr;
    }
  }

  __device__ void Fetch(uint4 (&into)[2][kLoads]) {
    if (visit >= visits) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int j = 0; j < kLoads; ++j) {
        const int i = begin + kRead<W> * j;
        into[half][j] =
            from[half] != nullptr && own + i < in_features ? tiles::LoadOnce(from[half] + i) : make_uint4(0, 0, 0, 0);
      }
    }
    begin += kStep<W>;
    if (first + begin < in_features) return;
    begin = 0;
    if (++visit < visits) Point();
  }
};

/// An output of one row from its sums over each matrix. Each step rounds to T, as kernels one after the other would.
template <int kMatrices, typename T, typename Y, typename W>
__device__ void Finish(const Job<T, Y, W>& job, int row, int output, float (&sums)[kMatrices]) {
#pragma unroll
  for (int m = 0; m < kMatrices; ++m) {
    if constexpr (!std::is_same_v<T, W>) sums[m] *= job.scales[m * job.outputs + output];
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

/// sums += the products of 16 bytes of two rows of weights, a and b, and of what they meet of x.
template <typename T, typename W>
__device__ void AddProducts(const uint4& a, const uint4& b, const uint4* x, float (&sums)[4]) {
  if constexpr (std::is_same_v<T, W>) {
    tiles::Multiply<T>(a.x, b.x, a.y, b.y, x->x, x->y, sums);
    tiles::Multiply<T>(a.z, b.z, a.w, b.w, x->z, x->w, sums);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const unsigned of_a = WordOf(a, i);
      const unsigned of_b = WordOf(b, i);
      const uint4& of_x = x[i / 2];
      tiles::Multiply<T>(PairAs<T>(of_a, 0), PairAs<T>(of_b, 0), PairAs<T>(of_a, 1), PairAs<T>(of_b, 1),
                         WordOf(of_x, i % 2 * 2), WordOf(of_x, i % 2 * 2 + 1), sums);
    }
  }
}

/// Grid: at most as many blocks as are resident with kBlocksPerMultiprocessor; kThreads threads. A block takes every
/// gridDim'th tile, whose inputs its warps share. Reads the weights once, and x once for each tile. Shared memory: 16
/// floats for each visit, warp and row. Rows of the weights and of x are aligned to 16 bytes; at most 8 kColumns
/// rows.
template <typename T, typename Y, typename W, int kMatrices, int kColumns>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor) RowsTimesMatrix(const Job<T, Y, W> job) {
  extern __shared__ float sums[];  // [visits, warps, 8 kColumns, kTileRows]
  constexpr int kPart = 8 * kColumns * kTileRows;
  constexpr int kVectors = kPerVector<W> / kPerVector<T>;  // of x for one of the weights
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const int first = warp * kChunk<W>;
  const int own = first + kPerVector<W> * t;
  const int tile = static_cast<int>(blockIdx.x);
  const int tile_step = static_cast<int>(gridDim.x);
  const int block_visits = tile < job.tiles ? (job.tiles - 1 - tile) / tile_step + 1 : 0;
  const int visits = first < job.in_features ? block_visits : 0;  // a warp has inputs of all tiles or of none
  Reader<W, kMatrices> reader{job.weights, job.in_features, job.outputs, first, own, g, tile, tile_step, visits};
  if (visits > 0) reader.Point();
  uint4 ring[kStages][2][kLoads];
#pragma unroll
  for (int stage = 0; stage < kStages; ++stage) reader.Fetch(ring[stage]);
  ReleaseSuccessors();
  WaitForPredecessors();

  uint4 x[2][kColumns][kLoads * kVectors];  // of this chunk and of the next one
  const auto load = [&](int begin, uint4(&into)[kColumns][kLoads * kVectors]) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const int row = 8 * n + g;
#pragma unroll
      for (int j = 0; j < kLoads * kVectors; ++j) {
        const int i = own + begin + kRead<W> * (j / kVectors) + kPerVector<T> * (j % kVectors);
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
      const bool ends = first + begin + kStep<W> >= job.in_features;
      load(ends ? 0 : begin + kStep<W>, x[(stage + 1) % 2]);
#pragma unroll
      for (int j = 0; j < kLoads; ++j) {
#pragma unroll
        for (int n = 0; n < kColumns; ++n) {
          AddProducts<T, W>(ring[stage][0][j], ring[stage][1][j], &x[stage % 2][n][j * kVectors], partial[n]);
        }
      }
      reader.Fetch(ring[stage]);
      begin += kStep<W>;
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
  const int warps = min(kWarps, (job.in_features + kChunk<W> - 1) / kChunk<W>);
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

template <int kMatrices, int kColumns, typename T, typename Y, typename W>
bool LaunchRows(const LaunchOn& on, Job<T, Y, W> job) {
  constexpr int kOutputs = kTileRows / kMatrices;
  job.tiles = (job.outputs + kOutputs - 1) / kOutputs;
  // As many blocks as have the same number of tiles: all end together, and fewer reads under way are still enough.
  const int most = kBlocksPerMultiprocessor * on.multiprocessors;
  const int each = (job.tiles + most - 1) / most;
  const int blocks = (job.tiles + each - 1) / each;
  const auto visits = static_cast<size_t>(each);
  const size_t shared_bytes = visits * kWarps * 8 * kColumns * kTileRows * sizeof(float);
  if (shared_bytes > kMostSharedBytes) return false;
  Launch(on, &RowsTimesMatrix<T, Y, W, kMatrices, kColumns>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
         shared_bytes, job);
  return true;
}

/// With as few columns of multiplications as there are rows for.
template <int kMatrices, typename T, typename Y, typename W>
bool LaunchFor(const LaunchOn& on, const Job<T, Y, W>& job) {
  return job.rows <= 8 ? LaunchRows<kMatrices, 1>(on, job) : LaunchRows<kMatrices, 2>(on, job);
}

bool Serves(const RowProduct& product) {
  const int64_t in_features = product.x.row_elements();
  return product.x.rows() <= kMostFewRows && product.x.dtype() != DType::kF32 &&
         Vectorizable(product.x, in_features) && reinterpret_cast<uintptr_t>(product.weights) % 16 == 0;
}

template <typename T, typename Y, typename W>
Job<T, Y, W> JobOf(const RowProduct& product, TensorView y, Finishing finishing) {
  Job<T, Y, W> job{};
  job.x = Pointer<T>(product.x);
  job.x_stride = product.x.row_stride();
  job.weights = static_cast<const W*>(product.weights);
  job.scales = product.scales;
  job.bias = product.bias;
  job.y = Pointer<Y>(y);
  job.y_stride = y.row_stride();
  job.rows = static_cast<int>(product.x.rows());
  job.in_features = static_cast<int>(product.x.row_elements());
  job.outputs = static_cast<int>(y.row_elements());
  job.finishing = finishing;
  return job;
}

/// Calls function(zero of the dtype of x, zero of the weights' type) for an x of 16 bits.
template <typename Function>
bool DispatchNarrow(const RowProduct& product, const Function& function) {
  bool done = false;
  DispatchDevice(product.x.dtype(), [&](auto zero) {
    if constexpr (!std::is_same_v<decltype(zero), float>) {
      done = product.scales != nullptr ? function(zero, E4M3{}) : function(zero, zero);
    }
  });
  return done;
}

}  // namespace

bool MultiplyFewRows(const LaunchOn& on, const RowProduct& product, TensorView y) {
  if (!Serves(product)) return false;
  return DispatchNarrow(product, [&](auto zero, auto weight) {
    using T = decltype(zero);
    using W = decltype(weight);
    if (y.dtype() == DType::kF32) return LaunchFor<1>(on, JobOf<T, float, W>(product, y, Finishing::kStore));
    return LaunchFor<1>(on, JobOf<T, T, W>(product, y, Finishing::kStore));
  });
}

bool MultiplyFewRowsAndAdd(const LaunchOn& on, const RowProduct& product, TensorView sum) {
  if (!Serves(product)) return false;
  return DispatchNarrow(product, [&](auto zero, auto weight) {
    using T = decltype(zero);
    return LaunchFor<1>(on, JobOf<T, T, decltype(weight)>(product, sum, Finishing::kAdd));
  });
}

bool MultiplyFewRowsAndActivate(const LaunchOn& on, const RowProduct& product, Activation activation, bool gated,
                                TensorView y) {
  if (!Serves(product)) return false;
  return DispatchNarrow(product, [&](auto zero, auto weight) {
    using T = decltype(zero);
    auto job = JobOf<T, T, decltype(weight)>(product, y, Finishing::kActivate);
    job.activation = activation;
    return gated ? LaunchFor<2>(on, job) : LaunchFor<1>(on, job);
  });
}

}  // namespace runahead::cuda
