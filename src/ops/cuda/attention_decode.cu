// Attention of one query whose heads share keys and values (grouped and multi-query heads), on the tensor cores: keys
// and values are read once for many heads and go from memory to the multiplications without a stop in shared memory.
// The keys are split over blocks, and a second kernel joins their results (Dao et al. 2023, "Flash-Decoding").
#include <algorithm>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kTileKeys = 16;                   // keys of one multiplication
constexpr int kRoundKeys = kWarps * kTileKeys;  // keys of a block's step
constexpr int kTileHeads = 8;                   // query heads of one multiplication
constexpr int kMostSplits = kThreads;           // a thread of the second kernel for each
constexpr float kLog2E = 1.4426950408889634f;

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
  int group;       // q heads that share a kv head
  float scale;     // scale of the scores, base 2
  float* partial;  // [kv_heads, sets of heads, splits, heads of a set, kResultFloats]
};

/// 16 bytes that this block reads once.
__device__ uint4 LoadOnce(const void* from) {
  uint4 bytes;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(bytes.x), "=r"(bytes.y), "=r"(bytes.z), "=r"(bytes.w)
               : "l"(from));
  return bytes;
}

/// sums += a b: a [16, 16] and b [16, 8] as the tensor cores hold them.
template <typename T>
__device__ void Multiply(unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1,
                         float (&sums)[4]) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
}

/// Two numbers in a word, `low` first.
template <typename T>
__device__ unsigned Pack(float low, float high) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const unsigned*>(&both);
  } else {
    const __half2 both = __floats2half2_rn(low, high);
    return *reinterpret_cast<const unsigned*>(&both);
  }
}

/// The transpose of an 8 x 8 matrix of which each lane holds two neighbours of row lane / 4.
__device__ unsigned Transpose(unsigned word) {
  unsigned result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(word));
  return result;
}

/// The halves of two words: the lower ones, or the upper ones.
__device__ unsigned LowHalves(unsigned a, unsigned b) { return __byte_perm(a, b, 0x5410); }
__device__ unsigned HighHalves(unsigned a, unsigned b) { return __byte_perm(a, b, 0x7632); }

__device__ unsigned Word(const uint4& bytes, int i) {
  return i == 0 ? bytes.x : i == 1 ? bytes.y : i == 2 ? bytes.z : bytes.w;
}

/// The weight factor of what was summed up under `before` when the largest score is `now`.
__device__ float Rescale(float before, float now) { return before == -INFINITY ? 0.0f : exp2f(before - now); }

/// What a lane holds of kTileKeys keys, or values. In both products the order of the summed index is free, so a lane
/// reads 16 neighbouring bytes and calls them the elements that the tensor cores want of it. Lane 4 g + t reads of
/// keys g and g + 8 the elements 8 t + 32 j, and of the values of keys 2t, 2t + 1, 2t + 8, 2t + 9 the elements
/// 8 g + 64 j.
template <int kHeadDim>
struct KeyTile {
  uint4 words[2][kHeadDim / 32];

  template <typename T>
  __device__ void Load(const T* k, int64_t stride, int first, int end, int g, int t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int key = first + g + 8 * half;
#pragma unroll
      for (int j = 0; j < kHeadDim / 32; ++j) {
        words[half][j] = key < end ? LoadOnce(k + key * stride + 32 * j + 8 * t) : make_uint4(0, 0, 0, 0);
      }
    }
  }
};
template <int kHeadDim>
struct ValueTile {
  uint4 words[4][kHeadDim / 64];

  template <typename T>
  __device__ void Load(const T* v, int64_t stride, int first, int end, int g, int t) {
#pragma unroll
    for (int slot = 0; slot < 4; ++slot) {
      const int key = first + 2 * t + slot % 2 + 8 * (slot / 2);
#pragma unroll
      for (int j = 0; j < kHeadDim / 64; ++j) {
        words[slot][j] = key < end ? LoadOnce(v + key * stride + 64 * j + 8 * g) : make_uint4(0, 0, 0, 0);
      }
    }
  }
};

/// A warp's softmax so far for 8 kTiles heads. Lane 4 g + t knows of head 8 n + 2 t + c: its largest score, its part
/// of the sum of the weights, and the weighted values of elements 64 j + 8 g + 2 w + e in
/// values[n][4 j + w][2 e + c].
template <typename T, int kHeadDim, int kTiles>
struct State {
  float largest[kTiles][2];
  float sum[kTiles][2];
  float values[kTiles][kHeadDim / 16][4];

  __device__ void Clear() {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        largest[n][c] = -INFINITY;
        sum[n][c] = 0;
      }
#pragma unroll
      for (int m = 0; m < kHeadDim / 16; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) values[n][m][i] = 0;
      }
    }
  }

  /// Turns the scores of a tile's keys into weights and rescales what was summed up. scores[n]: keys g and g + 8
  /// (in the upper two) of heads 2t and 2t + 1. weights[n]: as the second operand of the product with the values.
  __device__ void Weigh(float (&scores)[kTiles][4], unsigned (&weights)[kTiles][2]) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      float keep[2];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float top = fmaxf(scores[n][c], scores[n][2 + c]);
#pragma unroll
        for (int offset = 4; offset < 32; offset *= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, offset));
        top = fmaxf(top, largest[n][c]);
        keep[c] = Rescale(largest[n][c], top);
        largest[n][c] = top;
        scores[n][c] = exp2f(scores[n][c] - top);
        scores[n][2 + c] = exp2f(scores[n][2 + c] - top);
        sum[n][c] = sum[n][c] * keep[c] + scores[n][c] + scores[n][2 + c];
      }
#pragma unroll
      for (int m = 0; m < kHeadDim / 16; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) values[n][m][i] *= keep[i % 2];
      }
      weights[n][0] = Transpose(Pack<T>(scores[n][0], scores[n][1]));
      weights[n][1] = Transpose(Pack<T>(scores[n][2], scores[n][3]));
    }
  }

  __device__ void Add(const ValueTile<kHeadDim>& tile, const unsigned (&weights)[kTiles][2]) {
#pragma unroll
    for (int m = 0; m < kHeadDim / 16; ++m) {
      unsigned word[4];
#pragma unroll
      for (int slot = 0; slot < 4; ++slot) word[slot] = Word(tile.words[slot][m / 4], m % 4);
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        Multiply<T>(LowHalves(word[0], word[1]), HighHalves(word[0], word[1]), LowHalves(word[2], word[3]),
                    HighHalves(word[2], word[3]), weights[n][0], weights[n][1], values[n][m]);
      }
    }
  }
};

/// One head's result of a part of the keys, in shared memory or as a block leaves it for the last one: head_dim
/// values, the largest score and the sum of the weights.
template <int kHeadDim>
constexpr int kResultFloats = kHeadDim + 4;  // a multiple of 16 bytes

/// scores[n] of keys first + g and + 8 of heads 8 n + 2 t and + 1; those beyond `end` are -infinity.
template <typename T, int kHeadDim, int kTiles>
__device__ void ScoreTile(const KeyTile<kHeadDim>& keys, const uint4 (&q)[kTiles][kHeadDim / 32], int key, int end,
                          float scale, float (&scores)[kTiles][4]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[n][i] = 0;
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j) {
      const uint4& a = keys.words[0][j];
      const uint4& b = keys.words[1][j];
      Multiply<T>(a.x, b.x, a.y, b.y, q[n][j].x, q[n][j].y, scores[n]);
      Multiply<T>(a.z, b.z, a.w, b.w, q[n][j].z, q[n][j].w, scores[n]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[n][i] = key + 8 * (i / 2) < end ? scores[n][i] * scale : -INFINITY;
  }
}

/// Four values of a head, from the results of the warps, which lie `step` floats apart; `scale` may become the
/// inverse of the sum. result: of the first warp.
template <int kHeadDim>
__device__ float4 JoinWarps(const float* result, int step, int element, float& largest, float& sum) {
  largest = -INFINITY;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) largest = fmaxf(largest, result[w * step + kHeadDim]);
  float4 values = make_float4(0, 0, 0, 0);
  sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    const float factor = Rescale(result[w * step + kHeadDim], largest);
    const float4 part = *reinterpret_cast<const float4*>(result + w * step + element);
    sum += factor * result[w * step + kHeadDim + 1];
    values.x += factor * part.x;
    values.y += factor * part.y;
    values.z += factor * part.z;
    values.w += factor * part.w;
  }
  return values;
}

template <typename T>
__device__ void StoreFour(T* to, const float4& values, float scale) {
  Vector<T, 4> stored;
  stored.values[0] = FromFloat<T>(values.x * scale);
  stored.values[1] = FromFloat<T>(values.y * scale);
  stored.values[2] = FromFloat<T>(values.z * scale);
  stored.values[3] = FromFloat<T>(values.w * scale);
  Store(to, stored);
}

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
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    const int head = kTileHeads * n + g;
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j) {
      q[n][j] =
          head < heads ? LoadOnce(job.q + (first_head + head) * kHeadDim + 32 * j + 8 * t) : make_uint4(0, 0, 0, 0);
    }
  }
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

#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float sum = state.sum[n][c];
#pragma unroll
      for (int offset = 4; offset < 32; offset *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
      float* const result = memory + warp * kStep + (kTileHeads * n + 2 * t + c) * kResultFloats<kHeadDim>;
#pragma unroll
      for (int m = 0; m < kHeadDim / 16; ++m) {
        *reinterpret_cast<float2*>(result + m / 4 * 64 + 8 * g + m % 4 * 2) =
            make_float2(state.values[n][m][c], state.values[n][m][2 + c]);
      }
      if (g == 0) *reinterpret_cast<float2*>(result + kHeadDim) = make_float2(state.largest[n][c], sum);
    }
  }
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
      StoreFour(out + i / kQuads * kHeadDim + element, joined, 1.0f / sum);
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
  StoreFour(job.out + static_cast<int64_t>(head) * kHeadDim + 4 * quad, values, 1.0f / sum);
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
      job.partial = scratch.partial;
      LaunchForHeads<T>(on, job, head_dim, scratch);
    }
  });
  return true;
}

}  // namespace runahead::cuda
