// The parts of attention on the tensor cores for one query whose heads share keys and values: tiles of keys and
// values that go from memory to the multiplications without a stop in shared memory, and softmax states.
#pragma once

#include <climits>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/softmax.cuh"
#include "ops/cuda/vector.cuh"

namespace runahead::cuda::tiles {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kTileKeys = 16;                   // keys of one multiplication
constexpr int kRoundKeys = kWarps * kTileKeys;  // keys of a block's step
constexpr int kTileHeads = 8;                   // query heads of one multiplication

/// 16 bytes that this block reads once.
__device__ inline uint4 LoadOnce(const void* from) {
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

/// Four 8 x 8 matrices from shared memory as the tensor cores hold them; lane 8 i + r names row r of matrix i.
__device__ inline void LoadMatrices(const void* from, unsigned (&words)[4]) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(from));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address));
}
/// Their transposes.
__device__ inline void LoadTransposed(const void* from, unsigned (&words)[4]) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(from));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address));
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
__device__ inline unsigned Transpose(unsigned word) {
  unsigned result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(word));
  return result;
}

/// The halves of two words: the lower ones, or the upper ones.
__device__ inline unsigned LowHalves(unsigned a, unsigned b) { return __byte_perm(a, b, 0x5410); }
__device__ inline unsigned HighHalves(unsigned a, unsigned b) { return __byte_perm(a, b, 0x7632); }

__device__ inline unsigned Word(const uint4& bytes, int i) {
  return i == 0 ? bytes.x : i == 1 ? bytes.y : i == 2 ? bytes.z : bytes.w;
}

/// What a lane holds of kTileKeys keys, or values; those outside [begin, end) are zeros. In both products the order
/// of the summed index is free, so a lane reads 16 neighbouring bytes and calls them the elements that the tensor
/// cores want of it. Lane 4 g + t reads of keys g and g + 8 the elements 8 t + 32 j, and of the values of keys 2t, 2t
/// + 1, 2t + 8, 2t + 9 the elements 8 g + 64 j.
template <int kHeadDim>
struct KeyTile {
  uint4 words[2][kHeadDim / 32];

  template <typename T>
  __device__ void Load(const T* k, int64_t stride, int first, int end, int g, int t, int begin = INT_MIN) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int key = first + g + 8 * half;
#pragma unroll
      for (int j = 0; j < kHeadDim / 32; ++j) {
        words[half][j] =
            key >= begin && key < end ? LoadOnce(k + key * stride + 32 * j + 8 * t) : make_uint4(0, 0, 0, 0);
      }
    }
  }
};
template <int kHeadDim>
struct ValueTile {
  uint4 words[4][kHeadDim / 64];

  template <typename T>
  __device__ void Load(const T* v, int64_t stride, int first, int end, int g, int t, int begin = INT_MIN) {
#pragma unroll
    for (int slot = 0; slot < 4; ++slot) {
      const int key = first + 2 * t + slot % 2 + 8 * (slot / 2);
#pragma unroll
      for (int j = 0; j < kHeadDim / 64; ++j) {
        words[slot][j] =
            key >= begin && key < end ? LoadOnce(v + key * stride + 64 * j + 8 * g) : make_uint4(0, 0, 0, 0);
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
        const float base = top == -INFINITY ? 0.0f : top;  // where no key of the tile is seen
        scores[n][c] = exp2f(scores[n][c] - base);
        scores[n][2 + c] = exp2f(scores[n][2 + c] - base);
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

/// scores[n] of keys first + g and + 8 of heads 8 n + 2 t and + 1; those outside [begin, end) are
/// -infinity.
template <typename T, int kHeadDim, int kTiles>
__device__ void ScoreTile(const KeyTile<kHeadDim>& keys, const uint4 (&q)[kTiles][kHeadDim / 32], int key, int end,
                          float scale, float (&scores)[kTiles][4], int begin = INT_MIN) {
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
    for (int i = 0; i < 4; ++i) {
      const int own = key + 8 * (i / 2);
      scores[n][i] = own >= begin && own < end ? scores[n][i] * scale : -INFINITY;
    }
  }
}

/// Leaves a warp's state in shared memory: the results of its heads. result: of head 0.
template <typename T, int kHeadDim, int kTiles>
__device__ void LeaveState(const State<T, kHeadDim, kTiles>& state, int g, int t, float* results) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float sum = state.sum[n][c];
#pragma unroll
      for (int offset = 4; offset < 32; offset *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
      float* const result = results + (kTileHeads * n + 2 * t + c) * kResultFloats<kHeadDim>;
#pragma unroll
      for (int m = 0; m < kHeadDim / 16; ++m) {
        *reinterpret_cast<float2*>(result + m / 4 * 64 + 8 * g + m % 4 * 2) =
            make_float2(state.values[n][m][c], state.values[n][m][2 + c]);
      }
      if (g == 0) *reinterpret_cast<float2*>(result + kHeadDim) = make_float2(state.largest[n][c], sum);
    }
  }
}

/// The queries of `heads` heads as the second operand of the product with the keys. q: of the first one.
template <typename T, int kHeadDim, int kTiles>
__device__ void LoadHeads(const T* q, int heads, int g, int t, uint4 (&words)[kTiles][kHeadDim / 32]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    const int head = kTileHeads * n + g;
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j) {
      words[n][j] = head < heads ? LoadOnce(q + head * kHeadDim + 32 * j + 8 * t) : make_uint4(0, 0, 0, 0);
    }
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

}  // namespace runahead::cuda::tiles
