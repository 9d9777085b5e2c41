// Attention to latent vectors (DeepSeek-V2, Liu et al. 2024, section 2.1): all query heads share one vector of each
// position, which is key and value, and a few turned features beside it. The keys are split over blocks where there
// are few queries, and a second kernel joins their results (Dao et al. 2023, "Flash-Decoding").
#include <algorithm>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/softmax.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHeads = 16;                       // query heads of a block
constexpr int kLanesOfHead = kThreads / kHeads;  // threads that share a head's softmax
constexpr int kColumns = 2;                      // features of a value that a thread sums up
constexpr int kStepKeys = 32;                    // keys of a block's step
constexpr int kMostSplits = kThreads;            // a thread of the second kernel for each
static_assert(kThreads * kColumns == kWidestLatent);

template <typename T>
struct Job {
  const T* q;  // [n, heads, rank]
  int64_t q_stride;
  const T* turned_q;  // [n, heads, turned]
  int64_t turned_q_stride;
  const T* latents;  // [rows, rank]
  int64_t latents_stride;
  const T* turned;  // [rows, turned features]
  int64_t turned_stride;
  T* out;  // [n, heads, rank]
  int64_t out_stride;
  int position;  // position of query 0
  int window;    // 0: all
  int heads;
  int sets;  // sets of kHeads heads
  int rank;
  int turned_features;
  float scale;     // scale of the scores, base 2
  int splits;      // parts of the keys
  float* partial;  // [n, sets, splits, kHeads, rank + 2]: largest score, sum of the weights, weighted values
};

/// Features of a key in shared memory, zeros behind the last one; a row's 4-byte words are odd in number, so that
/// rows below each other are in different banks.
__host__ __device__ constexpr int Padded(int features) { return (features + 3) / 4 * 4; }
template <typename T>
__host__ __device__ constexpr int RowWords(int features) {
  return Padded(features) * static_cast<int>(sizeof(T)) / 4 / 2 * 2 + 1;
}

/// Shared memory of a block.
template <typename T>
struct Memory {
  T* queries;      // [kHeads, Padded(features)]
  float* weights;  // [kStepKeys, kHeads]: scores, then weights
  float* keep;     // [kHeads]: what sums so far are multiplied by
  unsigned* keys;  // [kStepKeys, RowWords]: latent vectors, then what is turned
  int padded;
  int row_words;

  static __host__ __device__ size_t Bytes(int features) {
    return sizeof(T) * kHeads * Padded(features) +
           sizeof(float) * (kHeads + kStepKeys * (kHeads + RowWords<T>(features)));
  }
  __device__ Memory(void* memory, int features) : padded(Padded(features)), row_words(RowWords<T>(features)) {
    queries = static_cast<T*>(memory);
    weights = reinterpret_cast<float*>(queries + kHeads * padded);
    keep = weights + kStepKeys * kHeads;
    keys = reinterpret_cast<unsigned*>(keep + kHeads);
  }
  [[nodiscard]] __device__ T* Key(int i) const { return reinterpret_cast<T*>(keys + i * row_words); }
};

/// The queries of a block's heads; zeros where there is no head.
template <typename T>
__device__ void LoadQueries(const Job<T>& job, int query, int first_head, const Memory<T>& memory) {
  const int features = job.rank + job.turned_features;
  for (int i = static_cast<int>(threadIdx.x); i < kHeads * memory.padded; i += kThreads) {
    const int head = first_head + i / memory.padded;
    const int d = i % memory.padded;
    T value = FromFloat<T>(0.0f);
    if (head < job.heads && d < job.rank) {
      value = job.q[query * job.q_stride + int64_t{head} * job.rank + d];
    } else if (head < job.heads && d < features) {
      value = job.turned_q[query * job.turned_q_stride + int64_t{head} * job.turned_features + d - job.rank];
    }
    memory.queries[i] = value;
  }
}

/// Rows [first, first + kStepKeys) of the cache; zeros for those outside [begin, end).
template <typename T, bool kVectors>
__device__ void LoadKeys(const Job<T>& job, int first, int begin, int end, const Memory<T>& memory) {
  constexpr int kPer = kVectors ? kPerVector<T> : 1;
  const int per_row = (kVectors ? job.rank + job.turned_features : memory.padded) / kPer;
  for (int i = static_cast<int>(threadIdx.x); i < kStepKeys * per_row; i += kThreads) {
    const int row = i / per_row;
    const int d = i % per_row * kPer;
    const int key = first + row;
    const bool there = key >= begin && key < end && d < job.rank + job.turned_features;
    const T* const from = d < job.rank ? job.latents + key * job.latents_stride + d
                                       : job.turned + key * job.turned_stride + d - job.rank;
    if constexpr (kVectors) {
      const uint4 bytes = there ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
      auto* const to = reinterpret_cast<unsigned*>(memory.Key(row) + d);
      to[0] = bytes.x;
      to[1] = bytes.y;
      to[2] = bytes.z;
      to[3] = bytes.w;
    } else {
      memory.Key(row)[d] = there ? *from : FromFloat<T>(0.0f);
    }
  }
}

/// Four neighbouring elements, which 4 bytes align.
template <typename T>
__device__ void LoadFour(const T* from, float (&to)[4]) {
  constexpr int kWord = 4 / static_cast<int>(sizeof(T));
#pragma unroll
  for (int i = 0; i < 4; i += kWord) {
    const auto word = Load<kWord>(from + i);
#pragma unroll
    for (int j = 0; j < kWord; ++j) to[i + j] = ToFloat(word.values[j]);
  }
}

/// The scores of all heads at all keys of a step; -infinity for keys outside [begin, end). A thread has one key and
/// some heads, and a warp the same heads, whose queries are read once.
template <typename T>
__device__ void Score(const Memory<T>& memory, float scale, int first, int begin, int end) {
  static_assert(kStepKeys == 32);
  constexpr int kOwn = kHeads / (kThreads / kStepKeys);  // heads of a thread
  const int row = static_cast<int>(threadIdx.x) % kStepKeys;
  const int head = static_cast<int>(threadIdx.x) / kStepKeys * kOwn;
  const T* const key = memory.Key(row);
  const T* const queries = memory.queries + head * memory.padded;
  float dots[kOwn] = {};
#pragma unroll 4
  for (int d = 0; d < memory.padded; d += 4) {
    float features[4];
    LoadFour(key + d, features);
#pragma unroll
    for (int h = 0; h < kOwn; ++h) {
      const auto q = Load<4>(queries + h * memory.padded + d);
#pragma unroll
      for (int i = 0; i < 4; ++i) dots[h] = fmaf(ToFloat(q.values[i]), features[i], dots[h]);
    }
  }
  const bool seen = first + row >= begin && first + row < end;
#pragma unroll
  for (int h = 0; h < kOwn; ++h) memory.weights[row * kHeads + head + h] = seen ? scale * dots[h] : -INFINITY;
}

/// A head's softmax so far; its threads have the same largest score, and each the weights of some keys.
struct Softmax {
  float largest = -INFINITY;
  float sum = 0;
};

/// Turns a step's scores into weights, and leaves in `keep` what sums so far are multiplied by.
template <typename T>
__device__ void Weigh(const Memory<T>& memory, Softmax& softmax) {
  constexpr int kOwn = kStepKeys / kLanesOfHead;
  const int head = static_cast<int>(threadIdx.x) / kLanesOfHead;
  const int lane = static_cast<int>(threadIdx.x) % kLanesOfHead;
  float scores[kOwn];
  float largest = softmax.largest;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    scores[i] = memory.weights[(lane + i * kLanesOfHead) * kHeads + head];
    largest = fmaxf(largest, scores[i]);
  }
#pragma unroll
  for (int offset = kLanesOfHead / 2; offset > 0; offset /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
  }
  const float keep = Rescale(softmax.largest, largest);
  softmax.largest = largest;
  softmax.sum *= keep;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const float weight = Rescale(scores[i], largest);
    memory.weights[(lane + i * kLanesOfHead) * kHeads + head] = weight;
    softmax.sum += weight;
  }
  if (lane == 0) memory.keep[head] = keep;
}

/// The weighted sums of a step's values, of kColumns features of all heads.
template <typename T>
__device__ void Accumulate(const Memory<T>& memory, int rank, float (&sums)[kHeads][kColumns]) {
  const int column = static_cast<int>(threadIdx.x) * kColumns;
  if (column >= rank) return;
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) sums[h][c] *= memory.keep[h];
  }
  for (int row = 0; row < kStepKeys; ++row) {
    const T* const value = memory.Key(row) + column;
    const float values[kColumns] = {ToFloat(value[0]), ToFloat(value[1])};
#pragma unroll
    for (int h = 0; h < kHeads; h += 4) {
      const auto weights = Load<4>(memory.weights + row * kHeads + h);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int c = 0; c < kColumns; ++c) sums[h + i][c] = fmaf(weights.values[i], values[c], sums[h + i][c]);
      }
    }
  }
}

/// Grid: [queries * splits, sets of heads]. Each block reads the cache rows of its split once.
template <typename T, bool kVectors>
__global__ void __launch_bounds__(kThreads, 2) AttendLatents(const Job<T> job) {
  extern __shared__ uint4 shared[];
  __shared__ float2 ends[kHeads];  // largest score and sum of each head
  ReleaseSuccessors();
  WaitForPredecessors();
  const Memory<T> memory(shared, job.rank + job.turned_features);
  const int query = static_cast<int>(blockIdx.x) / job.splits;
  const int split = static_cast<int>(blockIdx.x) % job.splits;
  const int first_head = static_cast<int>(blockIdx.y) * kHeads;
  const int end = job.position + query + 1;
  const int begin = job.window > 0 ? max(end - job.window, 0) : 0;
  // Steps begin at multiples of their length, so that a query's sums have one order in any company.
  const int first_step = begin / kStepKeys;
  const int steps = (end + kStepKeys - 1) / kStepKeys - first_step;
  const int per_split = (steps + job.splits - 1) / job.splits;
  const int last_step = min(first_step + (split + 1) * per_split, first_step + steps);
  LoadQueries(job, query, first_head, memory);
  Softmax softmax;
  float sums[kHeads][kColumns] = {};
  for (int step = first_step + split * per_split; step < last_step; ++step) {
    __syncthreads();
    LoadKeys<T, kVectors>(job, step * kStepKeys, begin, end, memory);
    __syncthreads();
    Score(memory, job.scale, step * kStepKeys, begin, end);
    __syncthreads();
    Weigh(memory, softmax);
    __syncthreads();
    Accumulate(memory, job.rank, sums);
  }
  float sum = softmax.sum;
#pragma unroll
  for (int offset = kLanesOfHead / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread % kLanesOfHead == 0) ends[thread / kLanesOfHead] = make_float2(softmax.largest, sum);
  __syncthreads();

  const int64_t head_floats = job.rank + 2;
  const int64_t step_floats = kHeads * head_floats;
  const int64_t set = int64_t{query} * job.sets + blockIdx.y;
  float* const partials = job.partial + set * job.splits * step_floats;
  T* const out = job.out + query * job.out_stride + int64_t{first_head} * job.rank;
  const int column = thread * kColumns;
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    if (first_head + h >= job.heads) break;
    float* const own = partials + split * step_floats + h * head_floats;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (column + c >= job.rank) continue;
      if (job.splits == 1) {
        out[h * job.rank + column + c] = FromFloat<T>(sums[h][c] / ends[h].y);
      } else {
        own[2 + column + c] = sums[h][c];
      }
    }
    if (job.splits > 1 && thread == 0) {
      own[0] = ends[h].x;
      own[1] = ends[h].y;
    }
  }
}

/// The results of the splits of one head, joined and written. Grid: [queries, heads]; reads each part once.
template <typename T>
__global__ void __launch_bounds__(kThreads) JoinSplits(const Job<T> job) {
  __shared__ float factors[kMostSplits];
  __shared__ float scratch[33];
  __shared__ float tops[kThreads / 32];
  ReleaseSuccessors();
  WaitForPredecessors();
  const int query = static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  const int64_t head_floats = job.rank + 2;
  const int64_t step_floats = kHeads * head_floats;
  const int64_t set = int64_t{query} * job.sets + head / kHeads;
  const float* const parts = job.partial + set * job.splits * step_floats + head % kHeads * head_floats;

  const int thread = static_cast<int>(threadIdx.x);
  const bool has_split = thread < job.splits;
  const float top = has_split ? __ldcg(parts + thread * step_floats) : -INFINITY;
  float largest = WarpMax(top);
  if (thread % 32 == 0) tops[thread / 32] = largest;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kThreads / 32; ++w) largest = fmaxf(largest, tops[w]);
  factors[thread] = Rescale(top, largest);
  const float sum = BlockSum(has_split ? factors[thread] * __ldcg(parts + thread * step_floats + 1) : 0.0f, scratch);
  T* const out = job.out + query * job.out_stride + int64_t{head} * job.rank;
  for (int column = thread; column < job.rank; column += kThreads) {
    float value = 0;
#pragma unroll 8
    for (int p = 0; p < job.splits; ++p) value += factors[p] * __ldcg(parts + p * step_floats + 2 + column);
    out[column] = FromFloat<T>(value / sum);
  }
}

/// Parts of the keys so that few queries fill the GPU, each with keys for a few steps, as far as there is memory for
/// what they leave.
int64_t Splits(int64_t blocks, int64_t steps, int64_t part_floats, const SplitScratch& scratch) {
  constexpr int64_t kStepsWorthABlock = 4;
  const int64_t wanted = int64_t{2} * scratch.multiprocessors / blocks;
  const int64_t room = int64_t{scratch.blocks} * SplitScratch::kBlockFloats / part_floats / blocks;
  return std::clamp<int64_t>(std::min({wanted, room, steps / kStepsWorthABlock}), 1, kMostSplits);
}

}  // namespace

void AttendToLatents(const LaunchOn& on, TensorView q, int64_t position, const KvRows& keys,
                     const AttentionOptions& options, TensorView out, const SplitScratch& scratch, bool aligned) {
  const int64_t heads = q.shape()[1];
  const int64_t rank = q.shape()[2];
  const int64_t turned = options.rotated.shape()[2];
  const int64_t end = position + q.rows();
  CHECK_LE(rank, kWidestLatent);
  DispatchDevice(q.dtype(), [&](auto zero) {
    using T = decltype(zero);
    Job<T> job{};
    job.q = Pointer<T>(q);
    job.q_stride = q.row_stride();
    job.turned_q = Pointer<T>(options.rotated);
    job.turned_q_stride = options.rotated.row_stride();
    job.latents = Pointer<T>(keys.v);
    job.latents_stride = keys.v.row_stride();
    job.turned = Pointer<T>(keys.k);
    job.turned_stride = keys.k.row_stride();
    job.out = Pointer<T>(out);
    job.out_stride = out.row_stride();
    job.position = static_cast<int>(position);
    job.window = static_cast<int>(options.window < end ? options.window : 0);
    job.heads = static_cast<int>(heads);
    job.sets = static_cast<int>((heads + kHeads - 1) / kHeads);
    job.rank = static_cast<int>(rank);
    job.turned_features = static_cast<int>(turned);
    job.scale = options.scale * kLog2E;
    job.partial = scratch.partial;
    const int64_t visible = options.window > 0 ? std::min(options.window, end) : end;
    const int64_t steps = (visible + kStepKeys - 1) / kStepKeys;
    const int64_t splits = aligned ? 1 : Splits(q.rows() * job.sets, steps, kHeads * (rank + 2), scratch);
    job.splits = static_cast<int>(splits);
    const bool vectors = Vectorizable(keys.v, rank) && Vectorizable(keys.k, turned);
    const auto kernel = vectors ? &AttendLatents<T, true> : &AttendLatents<T, false>;
    Launch(on, kernel, dim3(static_cast<unsigned>(q.rows() * splits), static_cast<unsigned>(job.sets)),
           dim3(kThreads), Memory<T>::Bytes(job.rank + job.turned_features), job);
    if (splits == 1) return;
    Launch(on, &JoinSplits<T>, dim3(static_cast<unsigned>(q.rows()), static_cast<unsigned>(heads)), dim3(kThreads), 0,
           job);
  });
}

}  // namespace runahead::cuda
