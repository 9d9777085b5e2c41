// The products of a mixture: tiles of rows, each by the matrix of its expert, in one launch. On the tensor cores
// where rows can be read 16 bytes at a time and numbers have 16 bits; on the plain cores for all else. Each output's
// sum over the inputs has one order, whatever the size of its tile.
#include <cuda_pipeline_primitives.h>

#include "ops/cuda/activation.cuh"
#include "ops/cuda/attention_tiles.cuh"
#include "ops/cuda/mixture.h"

namespace runahead::cuda {
namespace {

/// A product of all tiles. Gated, an output is made of two columns of the product: gate and up.
template <typename T>
struct ExpertJob {
  const T* x;
  int64_t x_stride;
  const int32_t* row_of;  // the row of x of each slot; null: the slot itself
  T* out;                 // [slots, outputs]
  int64_t out_stride;
  int in_features;
  int outputs;
  const ExpertTile* tiles;
  const int32_t* tile_count;
  Activation activation;
  ClampedGate clamped;
};

/// The row of an expert's matrix that column `column` of a block's product stands for; below 0: none. Where gated, 8
/// columns of gates and 8 of what they gate take turns, so that a thread has both of an output.
template <typename T, bool kGated>
__device__ int64_t MatrixRow(const ExpertJob<T>& job, int first_output, int column) {
  if constexpr (kGated) {
    const int output = first_output + column / 16 * 8 + column % 8;
    return output < job.outputs ? output + int64_t{column / 8 % 2} * job.outputs : -1;
  } else {
    return first_output + column < job.outputs ? first_output + column : -1;
  }
}

/// The bias of output `output` of the product with `rows` rows of the matrix before it.
__device__ inline float BiasOf(const float* biases, int output, int rows = 0) {
  return biases == nullptr ? 0 : biases[rows + output];
}

/// An activated output. Each step rounds to T, as kernels one after the other would.
template <typename T>
__device__ float Gated(const ExpertJob<T>& job, float gate, float up) {
  gate = ToFloat(FromFloat<T>(gate));
  up = ToFloat(FromFloat<T>(up));
  const float limit = job.clamped.limit;
  if (limit == 0) return Apply<T>(job.activation, gate) * up;
  // Comparisons and not fminf, so that what is no number stays none.
  gate = gate > limit ? limit : gate;
  up = up > limit ? limit : up < -limit ? -limit : up;
  return (up + 1) * gate * Sigmoid(job.clamped.slope * gate, T{});
}

template <typename T, bool kGated, int kRows, int kColumns, int kDepth, int kWarpRows, int kWarpColumns>
struct Tensor16 {
  static constexpr int kThreads = 32 * kWarpRows * kWarpColumns;
  static constexpr int kStages = 4;
  static constexpr int kChunks = kDepth / 8;  // 16 bytes each, of a row in a stage
  static constexpr int kStageBytes = (kRows + kColumns) * kDepth * static_cast<int>(sizeof(T));
  static constexpr int kOwnRows = kRows / kWarpRows / 16;          // multiplications of a warp along the rows
  static constexpr int kOwnColumns = kColumns / kWarpColumns / 8;  // and along the columns
  static_assert(kOwnRows > 0 && kOwnColumns % 2 == 0);

  /// Where a chunk lies in a stage: 8 rows below each other are in different banks.
  __device__ static int Place(int row, int chunk) {
    const int turned = kChunks == 8 ? chunk ^ (row % 8) : chunk ^ (row / 2 % 4);
    return (row * kChunks + turned) * 8;
  }
};

/// Grid: [blocks of outputs, most tiles]. Reads each row of the tile, and the expert's matrix, once.
template <typename T, bool kGated, int kRows, int kColumns, int kDepth, int kWarpRows, int kWarpColumns>
__global__ void __launch_bounds__(32 * kWarpRows * kWarpColumns)
    ExpertsOnTensorCores(const ExpertJob<T> job, const __grid_constant__ ExpertMatrices matrices) {
  using Shape = Tensor16<T, kGated, kRows, kColumns, kDepth, kWarpRows, kWarpColumns>;
  extern __shared__ uint4 memory[];
  ReleaseSuccessors();
  WaitForPredecessors();
  if (static_cast<int>(blockIdx.y) >= *job.tile_count) return;
  const ExpertTile tile = job.tiles[blockIdx.y];
  const T* const weights = static_cast<const T*>(matrices.weights[tile.expert]);
  const float* const biases = matrices.biases[tile.expert];
  const int first_output = static_cast<int>(blockIdx.x) * (kGated ? kColumns / 2 : kColumns);
  const int thread = static_cast<int>(threadIdx.x);
  T* const stages = reinterpret_cast<T*>(memory);

  // The chunks of a stage that this thread brings, always of the same rows.
  constexpr int kBrought = (kRows + kColumns) * Shape::kChunks / Shape::kThreads;
  static_assert((kRows + kColumns) * Shape::kChunks % Shape::kThreads == 0);
  const T* from[kBrought];
#pragma unroll
  for (int i = 0; i < kBrought; ++i) {
    const int row = (thread + i * Shape::kThreads) / Shape::kChunks;
    from[i] = nullptr;
    if (row < kRows) {
      if (row < tile.slots) {
        const int slot = tile.first + row;
        from[i] = job.x + (job.row_of == nullptr ? slot : job.row_of[slot]) * job.x_stride;
      }
    } else if (const int64_t at = MatrixRow<T, kGated>(job, first_output, row - kRows); at >= 0) {
      from[i] = weights + at * job.in_features;
    }
  }
  const auto bring = [&](int step) {
    T* const stage = stages + step % Shape::kStages * (kRows + kColumns) * kDepth;
#pragma unroll
    for (int i = 0; i < kBrought; ++i) {
      const int index = thread + i * Shape::kThreads;
      const int chunk = index % Shape::kChunks;
      const int input = step * kDepth + 8 * chunk;
      const bool there = from[i] != nullptr && input < job.in_features;
      __pipeline_memcpy_async(stage + Shape::Place(index / Shape::kChunks, chunk), there ? from[i] + input : job.x,
                              16, there ? 0 : 16);
    }
  };

  const int steps = (job.in_features + kDepth - 1) / kDepth;
#pragma unroll
  for (int step = 0; step < Shape::kStages - 1; ++step) {
    if (step < steps) bring(step);
    __pipeline_commit();
  }
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int warp_row = warp / kWarpColumns * (kRows / kWarpRows);
  const int warp_column = warp % kWarpColumns * (kColumns / kWarpColumns);
  float sums[Shape::kOwnRows][Shape::kOwnColumns][4] = {};
  // What is multiplied now, and next: on its way from shared memory meanwhile.
  unsigned a[2][Shape::kOwnRows][4];
  unsigned b[2][Shape::kOwnColumns / 2][4];
  const auto load = [&](int step, int k, int into) {
    const T* const rows = stages + step % Shape::kStages * (kRows + kColumns) * kDepth;
    const T* const columns = rows + kRows * kDepth;
#pragma unroll
    for (int m = 0; m < Shape::kOwnRows; ++m) {
      tiles::LoadMatrices(rows + Shape::Place(warp_row + 16 * m + lane % 16, 2 * k + lane / 16), a[into][m]);
    }
#pragma unroll
    for (int n = 0; n < Shape::kOwnColumns / 2; ++n) {
      tiles::LoadMatrices(
          columns + Shape::Place(warp_column + 16 * n + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2), b[into][n]);
    }
  };
  constexpr int kParts = kDepth / 16;  // multiplications along a stage's inputs
  static_assert(kParts % 2 == 0);
  __pipeline_wait_prior(Shape::kStages - 2);
  __syncthreads();
  load(0, 0, 0);
  for (int step = 0; step < steps; ++step) {
#pragma unroll
    for (int k = 0; k < kParts; ++k) {
      if (k + 1 < kParts) {
        load(step, k + 1, (k + 1) % 2);
      } else {
        // The stage before this one is free since all warps met at its end.
        if (step + Shape::kStages - 1 < steps) bring(step + Shape::kStages - 1);
        __pipeline_commit();
        __pipeline_wait_prior(Shape::kStages - 2);
        __syncthreads();
        if (step + 1 < steps) load(step + 1, 0, 0);
      }
#pragma unroll
      for (int m = 0; m < Shape::kOwnRows; ++m) {
#pragma unroll
        for (int n = 0; n < Shape::kOwnColumns; ++n) {
          const unsigned(&row)[4] = a[k % 2][m];
          const unsigned(&column)[4] = b[k % 2][n / 2];
          tiles::Multiply<T>(row[0], row[1], row[2], row[3], column[n % 2 * 2], column[n % 2 * 2 + 1], sums[m][n]);
        }
      }
    }
  }

  const int g = lane / 4;
  const int t = lane % 4;
  constexpr int kEach = kGated ? 2 : 1;  // multiplications that an output is made of
#pragma unroll
  for (int m = 0; m < Shape::kOwnRows; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_row + 16 * m + 8 * half + g;
      if (row >= tile.slots) continue;
      T* const out = job.out + (tile.first + row) * job.out_stride + first_output;
#pragma unroll
      for (int n = 0; n < Shape::kOwnColumns; n += kEach) {
        const int output = (warp_column / 8 + n) / kEach * 8 + 2 * t;
        if (first_output + output >= job.outputs) continue;
        Vector<T, 2> both;
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int at = first_output + output + c;
          const float value = sums[m][n][2 * half + c] + BiasOf(biases, at);
          if constexpr (kGated) {
            const float up = sums[m][n + 1][2 * half + c] + BiasOf(biases, at, job.outputs);
            both.values[c] = FromFloat<T>(Gated(job, value, up));
          } else {
            both.values[c] = FromFloat<T>(value);
          }
        }
        Store(out + output, both);
      }
    }
  }
}

constexpr int kPlainThreads = 256;
constexpr int kPlainRows = 64;
constexpr int kPlainColumns = 64;
constexpr int kPlainDepth = 16;

/// The same on the plain cores, for any shape and dtype: 64 by 64 products in a block, 4 by 4 in a thread.
template <typename T, bool kGated>
__global__ void __launch_bounds__(kPlainThreads)
    ExpertsOnPlainCores(const ExpertJob<T> job, const __grid_constant__ ExpertMatrices matrices) {
  __shared__ float rows[kPlainDepth][kPlainRows + 1];
  __shared__ float columns[kPlainDepth][kPlainColumns + 1];
  ReleaseSuccessors();
  WaitForPredecessors();
  if (static_cast<int>(blockIdx.y) >= *job.tile_count) return;
  const ExpertTile tile = job.tiles[blockIdx.y];
  const T* const weights = static_cast<const T*>(matrices.weights[tile.expert]);
  const float* const biases = matrices.biases[tile.expert];
  const int first_output = static_cast<int>(blockIdx.x) * (kGated ? kPlainColumns / 2 : kPlainColumns);
  const int thread = static_cast<int>(threadIdx.x);
  const int x = thread % 16;
  const int y = thread / 16;
  for (int first = 0; first < tile.slots; first += kPlainRows) {
    float sums[4][4] = {};
    for (int begin = 0; begin < job.in_features; begin += kPlainDepth) {
      const int input = begin + x;
      for (int i = y; i < kPlainRows; i += 16) {
        const int slot = tile.first + first + i;
        const bool there = first + i < tile.slots && input < job.in_features;
        rows[x][i] =
            there ? ToFloat(job.x[(job.row_of == nullptr ? slot : job.row_of[slot]) * job.x_stride + input]) : 0;
        const int64_t at = MatrixRow<T, kGated>(job, first_output, i);
        columns[x][i] = at >= 0 && input < job.in_features ? ToFloat(weights[at * job.in_features + input]) : 0;
      }
      __syncthreads();
      for (int k = 0; k < kPlainDepth; ++k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            // Columns 8 apart, so that a thread has gates and what they gate.
            sums[i][j] = fmaf(rows[k][y + 16 * i], columns[k][x / 8 * 32 + x % 8 + 8 * j], sums[i][j]);
          }
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = first + y + 16 * i;
      if (row >= tile.slots) continue;
      T* const out = job.out + (tile.first + row) * job.out_stride;
#pragma unroll
      for (int j = 0; j < 4; j += kGated ? 2 : 1) {
        const int column = x / 8 * 32 + x % 8 + 8 * j;
        const int output = first_output + (kGated ? column / 16 * 8 + column % 8 : column);
        if (output >= job.outputs) continue;
        const float value = sums[i][j] + BiasOf(biases, output);
        if constexpr (kGated) {
          out[output] = FromFloat<T>(Gated(job, value, sums[i][j + 1] + BiasOf(biases, output, job.outputs)));
        } else {
          out[output] = FromFloat<T>(value);
        }
      }
    }
  }
}

template <typename T, bool kGated, int kRows, int kColumns, int kDepth, int kWarpRows, int kWarpColumns>
void LaunchOnTensorCores(const LaunchOn& on, const ExpertJob<T>& job, const ExpertMatrices& matrices, int tiles) {
  using Shape = Tensor16<T, kGated, kRows, kColumns, kDepth, kWarpRows, kWarpColumns>;
  constexpr int kOutputs = kGated ? kColumns / 2 : kColumns;
  const auto blocks = static_cast<unsigned>((job.outputs + kOutputs - 1) / kOutputs);
  Launch(on, &ExpertsOnTensorCores<T, kGated, kRows, kColumns, kDepth, kWarpRows, kWarpColumns>,
         dim3(blocks, static_cast<unsigned>(tiles)), dim3(Shape::kThreads), Shape::kStages * Shape::kStageBytes, job,
         matrices);
}

template <bool kGated>
void Multiply(const LaunchOn& on, TensorView x, const ExpertMatrices& matrices, const Mixture& mixture,
              const RoutedRows& routed, const int32_t* row_of, TensorView out) {
  const int tiles = routed.MostTiles();
  const int64_t in_features = x.row_elements();
  bool aligned = Vectorizable(x, in_features) && Vectorizable(out, out.row_elements());
  for (int e = 0; e < routed.experts; ++e) {
    aligned = aligned && reinterpret_cast<uintptr_t>(matrices.weights[e]) % 16 == 0;
  }
  DispatchDevice(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const ExpertJob<T> job{Pointer<T>(x),
                           x.row_stride(),
                           row_of,
                           Pointer<T>(out),
                           out.row_stride(),
                           static_cast<int>(in_features),
                           static_cast<int>(out.row_elements()),
                           routed.tiles,
                           routed.tile_count,
                           mixture.activation,
                           mixture.clamped};
    if constexpr (!std::is_same_v<T, float>) {
      constexpr int kSmallTile = 16;
      if (aligned && routed.tile_slots == kSmallTile) {
        return LaunchOnTensorCores<T, kGated, kSmallTile, 64, 64, 1, 4>(on, job, matrices, tiles);
      }
      if (aligned) return LaunchOnTensorCores<T, kGated, 128, 128, 32, 2, 2>(on, job, matrices, tiles);
    }
    constexpr int kOutputs = kGated ? kPlainColumns / 2 : kPlainColumns;
    const auto blocks = static_cast<unsigned>((job.outputs + kOutputs - 1) / kOutputs);
    Launch(on, &ExpertsOnPlainCores<T, kGated>, dim3(blocks, static_cast<unsigned>(tiles)), dim3(kPlainThreads), 0,
           job, matrices);
  });
}

}  // namespace

void MultiplyGatedByExperts(const LaunchOn& on, TensorView x, const ExpertMatrices& matrices, const Mixture& mixture,
                            const RoutedRows& routed, TensorView out) {
  Multiply<true>(on, x, matrices, mixture, routed, routed.row_of, out);
}

void MultiplyByExperts(const LaunchOn& on, TensorView x, const ExpertMatrices& matrices, const RoutedRows& routed,
                       TensorView out) {
  Multiply<false>(on, x, matrices, {}, routed, nullptr, out);
}

}  // namespace runahead::cuda
