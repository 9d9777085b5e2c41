// Attention of many queries to latent vectors (DeepSeek-V2, Liu et al. 2024, section 2.1) on the tensor cores, for
// the widths that models have. All query heads share a position's vector, so rows of the products are query heads.
#include <cuda_pipeline_primitives.h>

#include "ops/cuda/attention_tiles.cuh"

namespace runahead::cuda {
namespace {

using tiles::LoadMatrices;
using tiles::LoadTransposed;
using tiles::Multiply;

constexpr int kRank = 512;
constexpr int kTurned = 64;
constexpr int kFeatures = kRank + kTurned;
constexpr int kItems = 64;  // query heads of a block; item = query * heads + head
constexpr int kKeys = 64;   // keys of a block's step
constexpr int kWarps = 8;   // four rows of them by two columns
constexpr int kThreads = 32 * kWarps;
constexpr int kChunks = kFeatures / 8;  // 16 bytes each, of a row
// Rows below each other begin in different banks.
constexpr int kRow = kFeatures + 8;
constexpr int kWeightsRow = kKeys + 8;
constexpr int kOwnKeys = kKeys / 2 / 8;                                    // multiplications of a warp along the keys
constexpr int kOwnColumns = kRank / 2 / 8;                                 // and along a value's features
constexpr int kElements = (kItems + kKeys) * kRow + kItems * kWeightsRow;  // of shared memory

template <typename T>
struct Job {
  const T* q;  // [n, heads, kRank]
  int64_t q_stride;
  const T* turned_q;  // [n, heads, kTurned]
  int64_t turned_q_stride;
  const T* latents;  // [rows, kRank]
  int64_t latents_stride;
  const T* turned;  // [rows, kTurned]
  int64_t turned_stride;
  T* out;  // [n, heads, kRank]
  int64_t out_stride;
  int position;  // position of query 0
  int heads;
  int items;
  float scale;  // scale of the scores, base 2
};

/// Brings the queries of a block's items; zeros behind the last item.
template <typename T>
__device__ void BringQueries(const Job<T>& job, int first_item, T* queries) {
  for (int i = static_cast<int>(threadIdx.x); i < kItems * kChunks; i += kThreads) {
    const int item = first_item + i / kChunks;
    const int d = i % kChunks * 8;
    const int query = item / job.heads;
    const int64_t head = item % job.heads;
    const T* const from = d < kRank ? job.q + query * job.q_stride + head * kRank + d
                                    : job.turned_q + query * job.turned_q_stride + head * kTurned + d - kRank;
    const bool there = item < job.items;
    __pipeline_memcpy_async(queries + i / kChunks * kRow + d, there ? from : job.q, 16, there ? 0 : 16);
  }
}

/// Brings keys [first, first + kKeys); zeros for those from `end` on.
template <typename T>
__device__ void BringKeys(const Job<T>& job, int first, int end, T* keys) {
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * kChunks; i += kThreads) {
    const int key = first + i / kChunks;
    const int d = i % kChunks * 8;
    const T* const from =
        d < kRank ? job.latents + key * job.latents_stride + d : job.turned + key * job.turned_stride + d - kRank;
    const bool there = key < end;
    __pipeline_memcpy_async(keys + i / kChunks * kRow + d, there ? from : job.latents, 16, there ? 0 : 16);
  }
}

/// What a lane knows of its two items, g and g + 8 of its warp's.
struct Softmax {
  float largest[2] = {-INFINITY, -INFINITY};
  float sum[2] = {};  // of the keys that the lane weighed
};

/// Products of a warp's 16 queries with half of the keys. rows: its queries; keys: its half.
template <typename T>
__device__ void ScoreKeys(const T* rows, const T* keys, int lane, float (&scores)[kOwnKeys][4]) {
#pragma unroll
  for (int n = 0; n < kOwnKeys; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[n][i] = 0;
  }
#pragma unroll 4
  for (int d = 0; d < kFeatures; d += 16) {
    unsigned a[4];
    LoadMatrices(rows + lane % 16 * kRow + d + lane / 16 * 8, a);
#pragma unroll
    for (int n = 0; n < kOwnKeys; n += 2) {
      unsigned b[4];
      LoadMatrices(keys + (8 * n + lane % 8 + lane / 16 * 8) * kRow + d + lane / 8 % 2 * 8, b);
      Multiply<T>(a[0], a[1], a[2], a[3], b[0], b[1], scores[n]);
      Multiply<T>(a[0], a[1], a[2], a[3], b[2], b[3], scores[n + 1]);
    }
  }
}

/// Adds the weighted values of a step. weights: of the warp's 16 queries; values: its half of the features.
template <typename T>
__device__ void AddValues(const T* weights, const T* values, int lane, float (&sums)[kOwnColumns][4]) {
#pragma unroll
  for (int key = 0; key < kKeys; key += 16) {
    unsigned a[4];
    LoadMatrices(weights + lane % 16 * kWeightsRow + key + lane / 16 * 8, a);
#pragma unroll
    for (int n = 0; n < kOwnColumns; n += 2) {
      unsigned b[4];
      LoadTransposed(values + (key + lane % 8 + lane / 8 % 2 * 8) * kRow + 8 * n + lane / 16 * 8, b);
      Multiply<T>(a[0], a[1], a[2], a[3], b[0], b[1], sums[n]);
      Multiply<T>(a[0], a[1], a[2], a[3], b[2], b[3], sums[n + 1]);
    }
  }
}

/// Grid: blocks of items, the last ones, which have the most keys, first. Each block reads its queries once, and the
/// cache rows up to its last query. A query's sums have one order, whatever others are asked with it.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) AttendLatentTiles(const Job<T> job) {
  extern __shared__ uint4 shared[];
  __shared__ float tops[2][kItems];
  T* const queries = reinterpret_cast<T*>(shared);
  T* const keys = queries + kItems * kRow;
  T* const weights = keys + kKeys * kRow;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const int row = warp / 2 * 16;  // first of the warp's items
  const int half = warp % 2;
  const int first_item = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kItems;
  const int last_item = min(first_item + kItems, job.items) - 1;
  const int end = job.position + last_item / job.heads + 1;
  int ends[2];  // keys that the lane's items see
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    ends[i] = job.position + min(first_item + row + g + 8 * i, last_item) / job.heads + 1;
  }
  ReleaseSuccessors();
  WaitForPredecessors();
  BringQueries(job, first_item, queries);
  Softmax softmax;
  float sums[kOwnColumns][4] = {};
  for (int first = 0; first < end; first += kKeys) {
    BringKeys(job, first, end, keys);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();
    float scores[kOwnKeys][4];
    ScoreKeys(queries + row * kRow, keys + half * (kKeys / 2) * kRow, lane, scores);
    const int first_own = first + half * (kKeys / 2) + 2 * t;
    float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < kOwnKeys; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bool seen = first_own + 8 * n + i % 2 < ends[i / 2];
        scores[n][i] = seen ? scores[n][i] * job.scale : -INFINITY;
        largest[i / 2] = fmaxf(largest[i / 2], scores[n][i]);
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      largest[i] = fmaxf(largest[i], __shfl_xor_sync(0xffffffffu, largest[i], 1));
      largest[i] = fmaxf(largest[i], __shfl_xor_sync(0xffffffffu, largest[i], 2));
      if (t == 0) tops[half][row + g + 8 * i] = largest[i];
    }
    __syncthreads();
    float keep[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int item = row + g + 8 * i;
      const float top = fmaxf(softmax.largest[i], fmaxf(tops[0][item], tops[1][item]));
      keep[i] = Rescale(softmax.largest[i], top);
      softmax.largest[i] = top;
      softmax.sum[i] *= keep[i];
    }
#pragma unroll
    for (int n = 0; n < kOwnKeys; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float low = Rescale(scores[n][2 * i], softmax.largest[i]);
        const float high = Rescale(scores[n][2 * i + 1], softmax.largest[i]);
        softmax.sum[i] += low + high;
        T* const to = weights + (row + g + 8 * i) * kWeightsRow + half * (kKeys / 2) + 8 * n + 2 * t;
        *reinterpret_cast<unsigned*>(to) = tiles::Pack<T>(low, high);
      }
    }
#pragma unroll
    for (int n = 0; n < kOwnColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[n][i] *= keep[i / 2];
    }
    __syncthreads();
    AddValues(weights + row * kWeightsRow, keys + half * (kRank / 2), lane, sums);
    __syncthreads();
  }

#pragma unroll
  for (int i = 0; i < 2; ++i) {
    softmax.sum[i] += __shfl_xor_sync(0xffffffffu, softmax.sum[i], 1);
    softmax.sum[i] += __shfl_xor_sync(0xffffffffu, softmax.sum[i], 2);
    if (t == 0) tops[half][row + g + 8 * i] = softmax.sum[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int in_block = row + g + 8 * i;
    const int item = first_item + in_block;
    if (item > last_item) continue;
    const float factor = 1.0f / (tops[0][in_block] + tops[1][in_block]);
    T* const out =
        job.out + item / job.heads * job.out_stride + int64_t{item % job.heads} * kRank + half * (kRank / 2) + 2 * t;
#pragma unroll
    for (int n = 0; n < kOwnColumns; ++n) {
      *reinterpret_cast<unsigned*>(out + 8 * n) =
          tiles::Pack<T>(sums[n][2 * i] * factor, sums[n][2 * i + 1] * factor);
    }
  }
}

}  // namespace

bool AttendManyToLatents(const LaunchOn& on, TensorView q, int64_t position, const KvRows& keys,
                         const AttentionOptions& options, TensorView out) {
  const int64_t heads = q.shape()[1];
  const TensorView& turned_q = options.rotated;
  const bool served = q.dtype() != DType::kF32 && options.window == 0 && q.shape()[2] == kRank &&
                      turned_q.shape()[2] == kTurned && q.rows() * heads <= INT32_MAX &&
                      Vectorizable(q, q.row_elements()) && Vectorizable(turned_q, turned_q.row_elements()) &&
                      Vectorizable(out, out.row_elements()) && Vectorizable(keys.k, kTurned) &&
                      Vectorizable(keys.v, kRank);
  if (!served) return false;
  DispatchDevice(q.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if constexpr (!std::is_same_v<T, float>) {
      Job<T> job{};
      job.q = Pointer<T>(q);
      job.q_stride = q.row_stride();
      job.turned_q = Pointer<T>(turned_q);
      job.turned_q_stride = turned_q.row_stride();
      job.latents = Pointer<T>(keys.v);
      job.latents_stride = keys.v.row_stride();
      job.turned = Pointer<T>(keys.k);
      job.turned_stride = keys.k.row_stride();
      job.out = Pointer<T>(out);
      job.out_stride = out.row_stride();
      job.position = static_cast<int>(position);
      job.heads = static_cast<int>(heads);
      job.items = static_cast<int>(q.rows() * heads);
      job.scale = options.scale * kLog2E;
      const auto blocks = static_cast<unsigned>((job.items + kItems - 1) / kItems);
      Launch(on, &AttendLatentTiles<T>, dim3(blocks), dim3(kThreads), kElements * sizeof(T), job);
    }
  });
  return true;
}

}  // namespace runahead::cuda
