// Attention on the plain cores: for one query or a few, with the keys split over blocks (Dao et al. 2023,
// "Flash-Decoding"), and for what the tensor-core kernels do not have (f32, soft caps, key biases, odd head sizes).
#include <algorithm>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kPerLane = 8;  // elements of a head that a lane holds
constexpr int kMaxHeadDim = SplitScratch::kMaxHeadDim;
constexpr float kLog2E = 1.4426950408889634f;

/// A query of one head is an item. The items of one kv head are numbered query by query: item = query * group + head
/// of the group. A block serves neighbouring items.
template <typename T>
struct Job {
  const T* q;  // [n, q_heads, head_dim]
  int64_t q_stride;
  T* out;  // [n, q_heads, head_dim]
  int64_t out_stride;
  const T* k;  // [rows, kv_heads, head_dim]
  const T* v;
  int64_t kv_stride;
  int n;
  int position;  // position of query 0
  int settled;   // rows of the keys and values that are there before this kernel's wait
  int group;     // q heads that share a kv head
  int head_dim;
  float scale;
  int window;             // 0: all
  float softcap;          // 0: none
  const float* key_bias;  // [q_heads, >= rows], or null
  int64_t bias_stride;
  int tiles;  // blocks of items of a kv head
  int kv_heads;
  int splits;          // number of parts of the keys
  float* partial;      // [kv_heads, tiles, splits, items, head_dim + 2]
  unsigned* counters;  // [kv_heads, tiles]
};

/// Softmax so far: the largest score (base 2), the sum of the weights and the weighted values.
struct State {
  float largest = -INFINITY;
  float sum = 0;
  float values[kPerLane] = {};
};

/// kPerLane elements of a head as they lie in memory.
template <typename T>
struct Part {
  uint4 bytes[sizeof(T) * kPerLane / 16];

  [[nodiscard]] __device__ float operator[](int d) const {
    return ElementOf<T>(bytes[d / kPerVector<T>], d % kPerVector<T>);
  }
};

/// The part at `from`, of which elements from `count` on are zero. Without kVectors element by element.
template <bool kVectors, typename T>
__device__ Part<T> LoadPart(const T* from, int count) {
  Part<T> part;
  if constexpr (kVectors) {  // then count is 0 or kPerLane
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(T)) * kPerLane / 16; ++i) {
      part.bytes[i] = make_uint4(0, 0, 0, 0);
      if (count > 0) part.bytes[i] = reinterpret_cast<const uint4*>(from)[i];
    }
  } else {
    Vector<T, kPerLane> elements;
    for (int d = 0; d < kPerLane; ++d) elements.values[d] = d < count ? from[d] : FromFloat<T>(0.0f);
    memcpy(&part, &elements, sizeof(part));
  }
  return part;
}

/// The weight factor of what was summed up under `before` when the largest score is `now`.
__device__ float Rescale(float before, float now) { return before == -INFINITY ? 0.0f : exp2f(before - now); }

/// What a lane knows of its block's items.
template <typename T, int kItems>
struct ItemSet {
  float q[kItems][kPerLane];  // times the scale
  int first[kItems];          // positions [first, own] are visible; first > own: no such item
  int own[kItems];
  int head;   // q head of item 0 within its group
  int group;  // q heads of the group
  int base;   // q head where the group begins

  [[nodiscard]] __device__ int Head(int i) const { return base + (head + i) % group; }
};

/// The score in base 2 of one item at key j, from the dot product; -infinity where the item does not see j.
template <typename T, int kItems>
__device__ float Score(const Job<T>& job, const ItemSet<T, kItems>& items, int i, int j, float dot) {
  if (j < items.first[i] || j > items.own[i]) return -INFINITY;
  if (job.softcap > 0) dot = job.softcap * tanhf(dot / job.softcap);
  if (job.key_bias != nullptr) dot += job.key_bias[items.Head(i) * job.bias_stride + j];
  return dot * kLog2E;
}

/// The keys and values that a lane has in flight. kLanes lanes share a key.
template <typename T, int kLanes, int kItems, bool kVectors>
struct Round {
  static constexpr int kUnroll = kItems == 1 ? 8 : 4;
  static constexpr int kSlots = kWarps * (32 / kLanes);
  static constexpr int kKeys = kSlots * kUnroll;  // keys of a block's round
  Part<T> keys[kUnroll];
  Part<T> values[kUnroll];

  /// Loads those of keys base + slot, base + slot + kSlots, ... that lie below `end`.
  __device__ void Load(const Job<T>& job, int base, int end, int count, const T* k, const T* v) {
    const int slot = static_cast<int>(threadIdx.x) / kLanes;
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int j = base + u * kSlots + slot;
      const int here = j < end ? count : 0;
      keys[u] = LoadPart<kVectors>(k + int64_t{j} * job.kv_stride, here);
      values[u] = LoadPart<kVectors>(v + int64_t{j} * job.kv_stride, here);
    }
  }
};

/// Adds the keys of [begin, end) to the items' states. `round`: with `loaded`, what lies at `begin`.
template <typename T, int kLanes, int kItems, bool kVectors>
__device__ void Accumulate(const Job<T>& job, const ItemSet<T, kItems>& items, int begin, int end, int count,
                           const T* k, const T* v, Round<T, kLanes, kItems, kVectors>& round, bool loaded,
                           State (&states)[kItems]) {
  using Keys = Round<T, kLanes, kItems, kVectors>;
  constexpr int kUnroll = Keys::kUnroll;
  constexpr int kSlots = Keys::kSlots;
  const int slot = static_cast<int>(threadIdx.x) / kLanes;
  for (int base = begin; base < end; base += Keys::kKeys) {
    if (!loaded) round.Load(job, base, end, count, k, v);
    loaded = false;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      float scores[kUnroll];
      float largest = states[i].largest;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        float dot = 0;
#pragma unroll
        for (int d = 0; d < kPerLane; ++d) dot += items.q[i][d] * round.keys[u][d];
#pragma unroll
        for (int offset = kLanes / 2; offset > 0; offset /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, offset);
        const int j = base + u * kSlots + slot;
        scores[u] = j < end ? Score(job, items, i, j, dot) : -INFINITY;
        largest = fmaxf(largest, scores[u]);
      }
      if (largest == -INFINITY) continue;
      const float keep = Rescale(states[i].largest, largest);
      states[i].largest = largest;
      states[i].sum *= keep;
#pragma unroll
      for (int d = 0; d < kPerLane; ++d) states[i].values[d] *= keep;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const float weight = exp2f(scores[u] - largest);
        states[i].sum += weight;
#pragma unroll
        for (int d = 0; d < kPerLane; ++d) states[i].values[d] += weight * round.values[u][d];
      }
    }
  }
}

/// Joins the states of the warp's slots; all lanes of a column hold the result.
template <int kLanes>
__device__ void JoinSlots(State& state) {
#pragma unroll
  for (int offset = kLanes; offset < 32; offset *= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, state.largest, offset);
    const float largest = fmaxf(state.largest, other);
    const float mine = Rescale(state.largest, largest);
    const float theirs = Rescale(other, largest);
    state.sum = state.sum * mine + __shfl_xor_sync(0xffffffffu, state.sum, offset) * theirs;
#pragma unroll
    for (int d = 0; d < kPerLane; ++d) {
      state.values[d] = state.values[d] * mine + __shfl_xor_sync(0xffffffffu, state.values[d], offset) * theirs;
    }
    state.largest = largest;
  }
}

/// One item's results of all splits, joined and written: of each [largest, sum, values of head_dim], `stride` floats
/// apart. All threads of the block.
template <typename T>
__device__ void JoinSplits(const float* partials, int splits, int64_t stride, int head_dim, T* out) {
  constexpr int kAtOnce = 16;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int d = static_cast<int>(threadIdx.x); d - lane < head_dim; d += kThreads) {
    float largest = -INFINITY;
    float sum = 0;
    float value = 0;
    for (int first = 0; first < splits; first += kAtOnce) {
      const float* const of = partials + first * stride;
      const int count = min(splits - first, kAtOnce);
      const float top = lane < count ? __ldcg(of + lane * stride) : -INFINITY;
      const float part = lane < count ? __ldcg(of + lane * stride + 1) : 0.0f;
      float values[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        values[i] = i < count && d < head_dim ? __ldcg(of + i * stride + 2 + d) : 0.0f;
      }
      const float before = largest;
      largest = fmaxf(before, WarpMax(top));
      const float keep = Rescale(before, largest);
      const float factor = Rescale(top, largest);
      sum = sum * keep + WarpSum(factor * part);
      value *= keep;
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) value += __shfl_sync(0xffffffffu, factor, i) * values[i];
    }
    if (d < head_dim) out[d] = FromFloat<T>(value / sum);
  }
}

/// All of the items but their queries, which may not be there yet.
template <typename T, int kItems>
__device__ void NameItems(const Job<T>& job, int first_item, int kv_head, ItemSet<T, kItems>& items) {
  items.head = first_item % job.group;
  items.group = job.group;
  items.base = kv_head * job.group;
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int query = (first_item + i) / job.group;
    const bool there = query < job.n;
    items.own[i] = there ? job.position + query : -1;
    items.first[i] = there && job.window > 0 ? max(items.own[i] - job.window + 1, 0) : 0;
  }
}

template <typename T, int kItems, bool kVectors>
__device__ void LoadQueries(const Job<T>& job, int first_item, int column, int count, ItemSet<T, kItems>& items) {
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int query = (first_item + i) / job.group;
    const auto q = LoadPart<kVectors>(
        job.q + int64_t{query} * job.q_stride + static_cast<int64_t>(items.Head(i)) * job.head_dim + column,
        query < job.n ? count : 0);
#pragma unroll
    for (int d = 0; d < kPerLane; ++d) items.q[i][d] = job.scale * q[d];
  }
}

/// Grid: kv heads x tiles of kItems items x splits of the keys, and perhaps idle blocks; kThreads threads. Heads of
/// at most kLanes * kPerLane elements. Each block reads the keys and values that its items see, once; with several
/// splits the last block of each tile joins their results.
template <typename T, int kLanes, int kItems, bool kVectors>
__global__ void __launch_bounds__(kThreads, kItems == 1   ? 4
                                            : kItems == 4 ? 3
                                                          : 2) AttendSplit(const Job<T> job) {
  __shared__ float joined[kWarps * (kMaxHeadDim + 2)];
  __shared__ bool last;
  ReleaseSuccessors();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int splits = job.splits;
  const int split = static_cast<int>(blockIdx.x) % splits;
  const int set = static_cast<int>(blockIdx.x) / splits;  // kv head and tile
  const int kv_head = set / job.tiles;
  if (kv_head >= job.kv_heads) return WaitForPredecessors();
  const int column = lane % kLanes * kPerLane;
  const int count = min(max(job.head_dim - column, 0), kPerLane);
  const int first_item = set % job.tiles * kItems;

  ItemSet<T, kItems> items;
  NameItems(job, first_item, kv_head, items);
  int end = 0;
#pragma unroll
  for (int i = 0; i < kItems; ++i) end = max(end, items.own[i] + 1);
  const int begin = items.first[0];
  const int per_split = (end - begin + splits - 1) / splits;
  const int split_begin = begin + split * per_split;
  const int split_end = min(split_begin + per_split, end);

  const int64_t offset = static_cast<int64_t>(kv_head) * job.head_dim + column;
  const T* const k = job.k + offset;
  const T* const v = job.v + offset;
  Round<T, kLanes, kItems, kVectors> round;
  const bool settled = split_begin < split_end && min(split_begin + round.kKeys, split_end) <= job.settled;
  if (settled) round.Load(job, split_begin, split_end, count, k, v);
  WaitForPredecessors();
  LoadQueries<T, kItems, kVectors>(job, first_item, column, count, items);
  State states[kItems];
  Accumulate<T, kLanes, kItems, kVectors>(job, items, split_begin, split_end, count, k, v, round, settled, states);

  const int64_t stride = job.head_dim + 2;  // floats of one partial result
  float* const partials = job.partial + int64_t{set} * splits * kItems * stride;
  float* const partial = partials + int64_t{split} * kItems * stride;
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    JoinSlots<kLanes>(states[i]);
    float* const mine = joined + warp * stride;
    if (lane < kLanes) {
      if (lane == 0) mine[0] = states[i].largest;
      if (lane == 0) mine[1] = states[i].sum;
      for (int d = 0; d < count; ++d) mine[2 + column + d] = states[i].values[d];
    }
    __syncthreads();
    float largest = -INFINITY;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) largest = fmaxf(largest, joined[w * stride]);
    float factors[kWarps];
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      factors[w] = Rescale(joined[w * stride], largest);
      sum += factors[w] * joined[w * stride + 1];
    }
    const int64_t query = (first_item + i) / job.group;
    for (int d = static_cast<int>(threadIdx.x); d < job.head_dim; d += kThreads) {
      float value = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) value += factors[w] * joined[w * stride + 2 + d];
      if (splits > 1) {
        partial[i * stride + 2 + d] = value;
        if (d == 0) partial[i * stride] = largest;
        if (d == 0) partial[i * stride + 1] = sum;
      } else if (query < job.n) {
        job.out[query * job.out_stride + static_cast<int64_t>(items.Head(i)) * job.head_dim + d] =
            FromFloat<T>(value / sum);
      }
    }
    __syncthreads();
  }
  if (splits == 1) return;

  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(job.counters + set, 1u) + 1 == static_cast<unsigned>(splits);
  __syncthreads();
  if (!last) return;
  __threadfence();
  for (int i = 0; i < kItems; ++i) {
    const int64_t query = (first_item + i) / job.group;
    if (query >= job.n) break;
    const int64_t head = kv_head * job.group + (first_item + i) % job.group;
    JoinSplits(partials + i * stride, splits, kItems * stride, job.head_dim,
               job.out + query * job.out_stride + head * job.head_dim);
  }
  if (threadIdx.x == 0) job.counters[set] = 0;  // the next launch expects 0
}

/// How many blocks share the keys of one set of items: enough to fill the GPU, each with keys for a few rounds.
int64_t Splits(int64_t sets, int64_t keys, const SplitScratch& scratch) {
  constexpr int64_t kKeysWorthABlock = 64;
  constexpr int64_t kBlocksPerMultiprocessor = 4;
  const int64_t wanted = kBlocksPerMultiprocessor * scratch.multiprocessors / sets;
  const int64_t worth = (keys + kKeysWorthABlock - 1) / kKeysWorthABlock;
  const int64_t most = scratch.blocks / sets;
  return std::clamp<int64_t>(std::min(wanted, worth), 1, std::max<int64_t>(1, most));
}

template <typename T, int kLanes, bool kVectors>
void LaunchSplit(const LaunchOn& on, Job<T> job, int64_t keys, const SplitScratch& scratch) {
  const int64_t items = static_cast<int64_t>(job.n) * job.group;
  constexpr int kSome = 4;  // the groups of many models
  const int per_block = items == 1 ? 1 : items <= kSome ? kSome : SplitScratch::kItems;
  const int64_t tiles = (items + per_block - 1) / per_block;
  const int64_t sets = tiles * job.kv_heads;
  const int64_t splits = Splits(sets, keys, scratch);
  job.tiles = static_cast<int>(tiles);
  job.splits = static_cast<int>(splits);
  const auto kernel = per_block == 1       ? &AttendSplit<T, kLanes, 1, kVectors>
                      : per_block == kSome ? &AttendSplit<T, kLanes, kSome, kVectors>
                                           : &AttendSplit<T, kLanes, SplitScratch::kItems, kVectors>;
  Launch(on, kernel, dim3(EvenBlocks(sets * splits, on)), dim3(kThreads), 0, job);
}

}  // namespace

void SplitAttention(const LaunchOn& on, TensorView q, int64_t position, const KvRows& keys,
                    const AttentionOptions& options, TensorView out, const SplitScratch& scratch, int64_t settled) {
  const int64_t head_dim = q.shape()[2];
  const int64_t kv_heads = keys.k.shape()[1];
  const int64_t end = position + q.rows();
  const int64_t visible = options.window > 0 ? std::min(options.window, end) : end;  // keys that the last query sees
  CHECK_LE(head_dim, int64_t{kMaxHeadDim});
  CHECK_EQ(keys.k.row_stride(), keys.v.row_stride());
  DispatchDevice(q.dtype(), [&](auto zero) {
    using T = decltype(zero);
    Job<T> job{};
    job.q = Pointer<T>(q);
    job.q_stride = q.row_stride();
    job.out = Pointer<T>(out);
    job.out_stride = out.row_stride();
    job.k = Pointer<T>(keys.k);
    job.v = Pointer<T>(keys.v);
    job.kv_stride = keys.k.row_stride();
    job.n = static_cast<int>(q.rows());
    job.position = static_cast<int>(position);
    job.settled = static_cast<int>(settled);
    job.kv_heads = static_cast<int>(kv_heads);
    job.group = static_cast<int>(q.shape()[1] / kv_heads);
    job.head_dim = static_cast<int>(head_dim);
    job.scale = options.scale;
    job.window = static_cast<int>(visible < end ? options.window : 0);
    job.softcap = options.softcap;
    job.key_bias = Pointer<float>(options.key_bias);
    job.bias_stride = options.key_bias.row_stride();
    const bool vectors = head_dim % kPerLane == 0 && Vectorizable(q, q.row_elements()) &&
                         Vectorizable(keys.k, keys.k.row_elements()) && Vectorizable(keys.v, keys.v.row_elements());
    job.partial = scratch.partial;
    job.counters = scratch.counters;
    if (!vectors) return LaunchSplit<T, 32, false>(on, job, visible, scratch);
    if (head_dim <= 64) return LaunchSplit<T, 8, true>(on, job, visible, scratch);
    if (head_dim <= 128) return LaunchSplit<T, 16, true>(on, job, visible, scratch);
    return LaunchSplit<T, 32, true>(on, job, visible, scratch);
  });
}

}  // namespace runahead::cuda
