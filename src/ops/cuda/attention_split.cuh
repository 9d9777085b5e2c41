// The parts of attention on the plain cores: keys and values in flight, softmax states, and how they are joined.
#pragma once

#include <climits>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/softmax.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda::split {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kPerLane = 8;  // elements of a head that a lane holds
constexpr int kMaxHeadDim = SplitScratch::kMaxHeadDim;

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
  bool aligned;  // rounds begin at multiples of their length, so that each item's sums have one order
  int group;     // q heads that share a kv head
  int head_dim;
  float scale;
  int window;             // 0: all
  float softcap;          // 0: none
  const float* key_bias;  // [q_heads, >= rows], or null
  int64_t bias_stride;
  const float* sinks;  // [q_heads], or null
  int tiles;           // blocks of items of a kv head
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

  /// Loads those of keys base + slot, base + slot + kSlots, ... that lie within [begin, end).
  __device__ void Load(const Job<T>& job, int base, int begin, int end, int count, const T* k, const T* v) {
    const int slot = static_cast<int>(threadIdx.x) / kLanes;
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int j = base + u * kSlots + slot;
      const int here = j >= begin && j < end ? count : 0;
      keys[u] = LoadPart<kVectors>(k + int64_t{j} * job.kv_stride, here);
      values[u] = LoadPart<kVectors>(v + int64_t{j} * job.kv_stride, here);
    }
  }
};

/// Adds the keys of [begin, end), none of which any item sees before `low`, to the items' states. `round`: with
/// `loaded`, what lies at `begin`.
template <typename T, int kLanes, int kItems, bool kVectors>
__device__ void Accumulate(const Job<T>& job, const ItemSet<T, kItems>& items, int low, int begin, int end, int count,
                           const T* k, const T* v, Round<T, kLanes, kItems, kVectors>& round, bool loaded,
                           State (&states)[kItems]) {
  using Keys = Round<T, kLanes, kItems, kVectors>;
  constexpr int kUnroll = Keys::kUnroll;
  constexpr int kSlots = Keys::kSlots;
  const int slot = static_cast<int>(threadIdx.x) / kLanes;
  for (int base = begin; base < end; base += Keys::kKeys) {
    if (!loaded) round.Load(job, base, low, end, count, k, v);
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
/// apart. sink: see WithSink. All threads of the block.
template <typename T>
__device__ void JoinSplits(const float* partials, int splits, int64_t stride, int head_dim, const float* sink,
                           T* out) {
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
    if (d < head_dim) out[d] = FromFloat<T>(value / WithSink(sum, sink, largest));
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

/// Floats that a block leaves of one item for those who join: the largest score, the sum and the values.
__device__ inline int64_t PartialFloats(int head_dim) { return head_dim + 2; }

/// Where the results of an item set's splits go.
struct Parts {
  float* partials;     // those of split 0: [kItems, PartialFloats]
  int64_t split_step;  // distance from one split's results to the next one's, floats
  unsigned* counter;   // 0 between calls
  int split;           // this block's
  int splits;
};

/// Joins the states of a block's warps and writes its items, or with several splits its part of them, which the last
/// block to come here joins. All threads of the block.
template <typename T, int kLanes, int kItems>
__device__ void FinishItems(const Job<T>& job, const ItemSet<T, kItems>& items, int kv_head, int first_item,
                            int column, int count, State (&states)[kItems], const Parts& parts) {
  __shared__ float joined[kWarps * (kMaxHeadDim + 2)];
  __shared__ bool last;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t stride = PartialFloats(job.head_dim);
  float* const partial = parts.partials + parts.split * parts.split_step;
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
    const int64_t head = items.Head(i);
    const float whole = WithSink(sum, SinkOf(job.sinks, head), largest);
    for (int d = static_cast<int>(threadIdx.x); d < job.head_dim; d += kThreads) {
      float value = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) value += factors[w] * joined[w * stride + 2 + d];
      if (parts.splits > 1) {
        partial[i * stride + 2 + d] = value;
        if (d == 0) partial[i * stride] = largest;
        if (d == 0) partial[i * stride + 1] = sum;
      } else if (query < job.n) {
        job.out[query * job.out_stride + head * job.head_dim + d] = FromFloat<T>(value / whole);
      }
    }
    __syncthreads();
  }
  if (parts.splits == 1) return;

  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(parts.counter, 1u) + 1 == static_cast<unsigned>(parts.splits);
  __syncthreads();
  if (!last) return;
  __threadfence();
  for (int i = 0; i < kItems; ++i) {
    const int64_t query = (first_item + i) / job.group;
    if (query >= job.n) break;
    const int64_t head = kv_head * job.group + (first_item + i) % job.group;
    JoinSplits(parts.partials + i * stride, parts.splits, parts.split_step, job.head_dim, SinkOf(job.sinks, head),
               job.out + query * job.out_stride + head * job.head_dim);
  }
  if (threadIdx.x == 0) *parts.counter = 0;  // the next launch expects 0
}

}  // namespace runahead::cuda::split
