// Attention of one query whose heads share keys and values (grouped and multi-query heads), on the tensor cores: keys
// and values are read once for many heads and go from memory to the multiplications without a stop in shared memory.
// The keys are split over blocks, and a second kernel joins their results (Dao et al. 2023, "Flash-Decoding").
#include <algorithm>

#include "ops/cuda/attention_tiles.cuh"

namespace runahead::cuda {
namespace {

using namespace tiles;

constexpr int kMostSplits = kThreads;  // a thread of the second kernel for each

template <typename T>
struct Job {
  const T* q;  // [q_heads, head_dim]
  T* out;      // [q_heads, head_dim]
  const T* k;  // [rows, kv_heads, head_dim]
  const T* v;
  int64_t kv_stride;
  int begin;  // keys [begin, end) are visible
  int end;
  int per_split;  // keys of a block, a multiple of kRoundKeys
  int splits;
  int sets;  // sets of query heads in a kv head's group
  int kv_heads;
  int group;           // q heads that share a kv head
  float scale;         // scale of the scores, base 2
  const float* sinks;  // [q_heads], or null
  float* partial;      // [kv_heads, sets of heads, splits, heads of a set, kResultFloats]
};

/// Grid: kv heads x sets of 8 kTiles heads of a group x splits of the keys, and perhaps idle blocks; kThreads
/// threads. Each block reads the keys and values of its split once, and writes its heads, or with several splits its
/// part of them. Everything is aligned to 16 bytes.
/// Launch bounds: 3 blocks a multiprocessor while kTiles * kHeadDim <= 192, else 2, as timed. The registers that one
/// block alone could have were not tried.
template <typename T, int kHeadDim, int kTiles>
__global__ void __launch_bounds__(kThreads, kTiles* kHeadDim <= 192 ? 3 : 2) AttendDecode(const Job<T> job) {
  constexpr int kHeads = kTileHeads * kTiles;
  constexpr int kStep = kHeads * kResultFloats<kHeadDim>;
  constexpr int kQuads = kHeadDim / 4;
  __shared__ __align__(16) float memory[kWarps * kStep];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const int splits = job.splits;
  const int split = static_cast<int>(blockIdx.x) % splits;
  const int set = static_cast<int>(blockIdx.x) / splits;  // index among the sets of all kv heads
  const int kv_head = set / job.sets;
  const int head_in_group = set % job.sets * kHeads;
  const int first_head = kv_head * job.group + head_in_group;
  const int heads = min(job.group - head_in_group, kHeads);
  const int end = min(job.begin + (split + 1) * job.per_split, job.end);
  int first = job.begin + split * job.per_split + warp * kTileKeys;
  const T* const k = job.k + static_cast<int64_t>(kv_head) * kHeadDim;
  const T* const v = job.v + static_cast<int64_t>(kv_head) * kHeadDim;
  ReleaseSuccessors();
  WaitForPredecessors();
  if (kv_head >= job.kv_heads) return;

  KeyTile<kHeadDim> keys;
  ValueTile<kHeadDim> values;
  keys.Load(k, job.kv_stride, first, end, g, t);
  uint4 q[kTiles][kHeadDim / 32];
  LoadHeads<T, kHeadDim, kTiles>(job.q + first_head * kHeadDim, heads, g, t, q);
  State<T, kHeadDim, kTiles> state;
  state.Clear();
  for (; first < end; first += kRoundKeys) {
    values.Load(v, job.kv_stride, first, end, g, t);
    float scores[kTiles][4];
    ScoreTile<T, kHeadDim, kTiles>(keys, q, first + g, end, job.scale, scores);
    keys.Load(k, job.kv_stride, first + kRoundKeys, end, g, t);  // keys of the next round
    unsigned weights[kTiles][2];
    state.Weigh(scores, weights);
    state.Add(values, weights);
  }

  LeaveState<T, kHeadDim, kTiles>(state, g, t, memory + warp * kStep);
  __syncthreads();
  float* const partial = job.partial + (int64_t{set} * splits + split) * kStep;
  T* const out = job.out + static_cast<int64_t>(first_head) * kHeadDim;
  for (int i = static_cast<int>(threadIdx.x); i < heads * kQuads; i += kThreads) {
    const int at = i / kQuads * kResultFloats<kHeadDim>;
    const int element = i % kQuads * 4;
    float largest;
    float sum;
    const float4 joined = JoinWarps<kHeadDim>(memory + at, kStep, element, largest, sum);
    if (splits == 1) {
      const float* const sink = SinkOf(job.sinks, first_head + i / kQuads);
      StoreFour(out + i / kQuads * kHeadDim + element, joined, 1.0f / WithSink(sum, sink, largest));
      continue;
    }
    *reinterpret_cast<float4*>(partial + at + element) = joined;
    if (element == 0) *reinterpret_cast<float2*>(partial + at + kHeadDim) = make_float2(largest, sum);
  }
}

/// The results of the splits of one head, joined and written. Grid: query heads; kThreads threads. Reads each part
/// once.
template <typename T, int kHeadDim, int kTiles>
__global__ void __launch_bounds__(kThreads) JoinSplits(const Job<T> job) {
  constexpr int kHeads = kTileHeads * kTiles;
  constexpr int kStep = kHeads * kResultFloats<kHeadDim>;  // distance from one split to the next, floats
  constexpr int kQuads = kHeadDim / 4;
  constexpr int kGroups = kThreads / kQuads;  // groups of threads, which share the splits
  __shared__ float factors[kMostSplits];
  __shared__ float scratch[33];
  __shared__ float tops[kWarps];
  __shared__ float4 sums[kGroups][kQuads];
  ReleaseSuccessors();
  WaitForPredecessors();
  const int head = static_cast<int>(blockIdx.x);
  const int in_group = head % job.group;
  const int64_t set = static_cast<int64_t>(head / job.group) * job.sets + in_group / kHeads;
  const float* const results = job.partial + set * job.splits * kStep + in_group % kHeads * kResultFloats<kHeadDim>;

  const int thread = static_cast<int>(threadIdx.x);
  float2 own = make_float2(-INFINITY, 0);  // the largest score and the sum of a split
  if (thread < job.splits) own = __ldcg(reinterpret_cast<const float2*>(results + thread * kStep + kHeadDim));
  float largest = own.x;
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
  }
  if (thread % 32 == 0) tops[thread / 32] = largest;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kWarps; ++w) largest = fmaxf(largest, tops[w]);
  factors[thread] = Rescale(own.x, largest);
  const float sum = BlockSum(factors[thread] * own.y, scratch);

  const int quad = thread % kQuads;
  float4 values = make_float4(0, 0, 0, 0);
#pragma unroll 8
  for (int p = thread / kQuads; p < job.splits; p += kGroups) {
    const float4 part = __ldcg(reinterpret_cast<const float4*>(results + p * kStep + 4 * quad));
    values.x += factors[p] * part.x;
    values.y += factors[p] * part.y;
    values.z += factors[p] * part.z;
    values.w += factors[p] * part.w;
  }
  sums[thread / kQuads][quad] = values;
  __syncthreads();
  if (thread >= kQuads) return;
#pragma unroll
  for (int group = 1; group < kGroups; ++group) {
    const float4 more = sums[group][quad];
    values.x += more.x;
    values.y += more.y;
    values.z += more.z;
    values.w += more.w;
  }
  const float whole = WithSink(sum, SinkOf(job.sinks, head), largest);
  StoreFour(job.out + static_cast<int64_t>(head) * kHeadDim + 4 * quad, values, 1.0f / whole);
}

template <typename T, int kHeadDim, int kTiles>
void LaunchDecode(const LaunchOn& on, Job<T> job, const SplitScratch& scratch) {
  constexpr int64_t kHeads = kTileHeads * kTiles;
  static_assert(kHeads * kResultFloats<kHeadDim> <= SplitScratch::kBlockFloats);
  const int64_t sets = (job.group + kHeads - 1) / kHeads;
  const int64_t keys = job.end - job.begin;
  const int64_t room = std::min<int64_t>(on.multiprocessors, scratch.blocks);  // a block each: fewer parts to join
  const int64_t wanted = std::clamp<int64_t>(room / (sets * job.kv_heads), 1, kMostSplits);
  const int64_t rounds = (keys + kRoundKeys - 1) / kRoundKeys;
  const int64_t rounds_per_split = (rounds + wanted - 1) / wanted;
  const int64_t splits = (rounds + rounds_per_split - 1) / rounds_per_split;
  job.per_split = static_cast<int>(rounds_per_split * kRoundKeys);
  job.splits = static_cast<int>(splits);
  job.sets = static_cast<int>(sets);
  Launch(on, &AttendDecode<T, kHeadDim, kTiles>, dim3(EvenBlocks(job.kv_heads * sets * splits, on)), dim3(kThreads),
         0, job);
  if (splits == 1) return;
  Launch(on, &JoinSplits<T, kHeadDim, kTiles>, dim3(static_cast<unsigned>(job.kv_heads * job.group)), dim3(kThreads),
         0, job);
}

/// Launches with as few sets of heads as fit the registers.
template <typename T>
void LaunchForHeads(const LaunchOn& on, const Job<T>& job, int64_t head_dim, const SplitScratch& scratch) {
  const bool narrow = job.group <= kTileHeads;
  if (head_dim == 64) {
    return narrow ? LaunchDecode<T, 64, 1>(on, job, scratch) : LaunchDecode<T, 64, 3>(on, job, scratch);
  }
  if (head_dim == 128) {
    return narrow ? LaunchDecode<T, 128, 1>(on, job, scratch) : LaunchDecode<T, 128, 2>(on, job, scratch);
  }
  LaunchDecode<T, 256, 1>(on, job, scratch);
}

}  // namespace

bool DecodeAttention(const LaunchOn& on, TensorView q, int64_t position, const KvRows& keys,
                     const AttentionOptions& options, TensorView out, const SplitScratch& scratch) {
  const int64_t head_dim = q.shape()[2];
  const int64_t kv_heads = keys.k.shape()[1];
  const int64_t group = q.shape()[1] / kv_heads;
  const bool served = q.rows() == 1 && group > 1 && q.dtype() != DType::kF32 && options.softcap == 0 &&
                      options.key_bias.data() == nullptr && (head_dim == 64 || head_dim == 128 || head_dim == 256) &&
                      Vectorizable(q, q.row_elements()) && Vectorizable(out, out.row_elements()) &&
                      Vectorizable(keys.k, keys.k.row_elements()) && Vectorizable(keys.v, keys.v.row_elements()) &&
                      kv_heads * ((group + kTileHeads - 1) / kTileHeads) <= scratch.blocks;
  if (!served) return false;
  CHECK_EQ(keys.k.row_stride(), keys.v.row_stride());
  DispatchDevice(q.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if constexpr (!std::is_same_v<T, float>) {
      Job<T> job{};
      job.q = Pointer<T>(q);
      job.out = Pointer<T>(out);
      job.k = Pointer<T>(keys.k);
      job.v = Pointer<T>(keys.v);
      job.kv_stride = keys.k.row_stride();
      job.end = static_cast<int>(position + 1);
      job.begin = options.window > 0 ? static_cast<int>(std::max<int64_t>(position + 1 - options.window, 0)) : 0;
      job.kv_heads = static_cast<int>(kv_heads);
      job.group = static_cast<int>(group);
      job.scale = options.scale * kLog2E;
      job.sinks = Pointer<float>(options.sinks);
      job.partial = scratch.partial;
      LaunchForHeads<T>(on, job, head_dim, scratch);
    }
  });
  return true;
}

}  // namespace runahead::cuda
