// Attention with products of bf16 pairs, for x86 processors that have them: as vectors (AVX-512 BF16) or as tiles
// (AMX). Both read the same panels: a 32-bit lane holds two neighbours of the summed dimension.
#include <hwy/base.h>

#include "ops/cpu/attention_kernel.h"
#include "tensor/dtype.h"

#if HWY_ARCH_X86_64

#if defined(__GNUC__) && !defined(__clang__)
// The compiler's own intrinsics leave values undefined on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>

namespace runahead::cpu {
namespace {

constexpr int64_t kKeys = 128;  // of a panel
constexpr int64_t kStep = 32;   // keys and rows that are worked on together; a smaller part of a panel may be skipped
constexpr int64_t kTileRows = 128;
constexpr float kHidden = -3e38f;  // a score whose weight is 0, also against kNothingYet

/// Summed features of a score: whole tiles.
constexpr int64_t KeyDepth(int64_t head_dim) { return (head_dim + 31) / 32 * 32; }
/// Features of the output: whole vectors.
constexpr int64_t ValueWidth(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

/// Panel: keys [KeyDepth / 2, kKeys, 2], then values [kKeys / 2, ValueWidth, 2], bf16. What is absent is zeros.
constexpr int64_t PanelElements(int64_t head_dim) { return kKeys * (KeyDepth(head_dim) + ValueWidth(head_dim)); }

/// One worker's memory.
struct Workspace {
  Workspace(std::byte* memory, int64_t head_dim) : output(reinterpret_cast<float*>(memory)) {
    scores = output + kTileRows * ValueWidth(head_dim);
    sums = scores + kStep * kKeys;
    maxima = sums + kTileRows * 16;
    queries = reinterpret_cast<uint16_t*>(maxima + kTileRows);
    weights = queries + kTileRows * KeyDepth(head_dim);
  }
  static size_t Bytes(int64_t head_dim) {
    return static_cast<size_t>(kTileRows * ValueWidth(head_dim) + kStep * kKeys + kTileRows * 17) * sizeof(float) +
           static_cast<size_t>(kTileRows * KeyDepth(head_dim) + kStep * kKeys) * sizeof(uint16_t);
  }

  float* output;      // [kTileRows, ValueWidth]
  float* scores;      // [kStep, kKeys]
  float* sums;        // [kTileRows, 16]: of the weights, by lane
  float* maxima;      // [kTileRows]
  uint16_t* queries;  // [kTileRows, KeyDepth], bf16
  uint16_t* weights;  // [kStep, kKeys], bf16
};

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,amx-tile,amx-bf16")

// ---- Products of kStep rows ------------------------------------------------------------------------------------

/// c += a b on kRows rows and C vectors of columns. a: [kRows, 2 pairs] bf16; b: [pairs, columns, 2] bf16; c: [kRows,
/// columns] f32. Strides count elements.
template <int C>
inline void MultiplyBlock(const uint16_t* a, int64_t a_stride, const uint16_t* b, int64_t b_stride, int64_t pairs,
                          bool accumulate, float* c, int64_t c_stride) {
  constexpr int kRows = 4;
  __m512 sum[kRows][C];
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j)
      sum[i][j] = accumulate ? _mm512_loadu_ps(c + i * c_stride + 16 * j) : _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < pairs; ++k) {
    __m512i row[C];
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) row[j] = _mm512_loadu_si512(b + k * b_stride + 32 * j);
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      int32_t pair;
      std::memcpy(&pair, a + i * a_stride + 2 * k, sizeof pair);
      const auto factor = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], factor, reinterpret_cast<__m512bh>(row[j]));
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) _mm512_storeu_ps(c + i * c_stride + 16 * j, sum[i][j]);
  }
}

struct Vectors {
  static void Begin() {}
  static void End() {}

  /// c (+)= a b for kStep rows. `depth` is a multiple of 32, `columns` of 16.
  static void Multiply(const uint16_t* a, int64_t a_stride, const uint16_t* b, int64_t b_columns, int64_t depth,
                       bool accumulate, float* c, int64_t c_stride, int64_t columns) {
    for (int64_t i = 0; i < kStep; i += 4) {
      const uint16_t* rows = a + i * a_stride;
      float* out = c + i * c_stride;
      int64_t j = 0;
      for (; j + 64 <= columns; j += 64) {
        MultiplyBlock<4>(rows, a_stride, b + 2 * j, 2 * b_columns, depth / 2, accumulate, out + j, c_stride);
      }
      for (; j + 32 <= columns; j += 32) {
        MultiplyBlock<2>(rows, a_stride, b + 2 * j, 2 * b_columns, depth / 2, accumulate, out + j, c_stride);
      }
      for (; j < columns; j += 16) {
        MultiplyBlock<1>(rows, a_stride, b + 2 * j, 2 * b_columns, depth / 2, accumulate, out + j, c_stride);
      }
    }
  }
};

struct Tiles {
  /// Tiles 0 to 3 sum, 4 and 5 hold rows of a, 6 and 7 columns of b: all 16 rows of 64 bytes.
  static void Begin() {
    struct alignas(64) {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = 64;
      config.rows[i] = 16;
    }
    _tile_loadconfig(&config);
  }
  static void End() { _tile_release(); }

  static void Multiply(const uint16_t* a, int64_t a_stride, const uint16_t* b, int64_t b_columns, int64_t depth,
                       bool accumulate, float* c, int64_t c_stride, int64_t columns) {
    const auto a_bytes = static_cast<size_t>(2 * a_stride);
    const auto b_bytes = static_cast<size_t>(4 * b_columns);
    const auto c_bytes = static_cast<size_t>(4 * c_stride);
    const uint16_t* below = a + 16 * a_stride;
    float* c_below = c + 16 * c_stride;
    int64_t j = 0;
    for (; j + 32 <= columns; j += 32) {
      if (accumulate) {
        _tile_loadd(0, c + j, c_bytes);
        _tile_loadd(1, c + j + 16, c_bytes);
        _tile_loadd(2, c_below + j, c_bytes);
        _tile_loadd(3, c_below + j + 16, c_bytes);
      } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
      }
      for (int64_t k = 0; k < depth; k += 32) {
        const uint16_t* right = b + k * b_columns + 2 * j;
        _tile_loadd(4, a + k, a_bytes);
        _tile_loadd(6, right, b_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right + 32, b_bytes);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, below + k, a_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      _tile_stored(0, c + j, c_bytes);
      _tile_stored(1, c + j + 16, c_bytes);
      _tile_stored(2, c_below + j, c_bytes);
      _tile_stored(3, c_below + j + 16, c_bytes);
    }
    if (j < columns) {
      if (accumulate) {
        _tile_loadd(0, c + j, c_bytes);
        _tile_loadd(2, c_below + j, c_bytes);
      } else {
        _tile_zero(0);
        _tile_zero(2);
      }
      for (int64_t k = 0; k < depth; k += 32) {
        _tile_loadd(4, a + k, a_bytes);
        _tile_loadd(5, below + k, a_bytes);
        _tile_loadd(6, b + k * b_columns + 2 * j, b_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(2, 5, 6);
      }
      _tile_stored(0, c + j, c_bytes);
      _tile_stored(2, c_below + j, c_bytes);
    }
  }
};

// ---- Softmax ---------------------------------------------------------------------------------------------------

/// 2^x to a relative error of 3e-6 (minimax polynomial on [-1/2, 1/2]), exactly 1 at 0, and 0 far below: a thousandth
/// of what rounding weights to bf16 loses.
inline __m512 Exp2(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(0.009582852922515444f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.05590642462466976f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.2402409861409742f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.693124193414275f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

/// cap * tanh(x / cap), times log2 e, to an absolute error of cap * 1e-5.
inline __m512 Cap(__m512 x, float cap) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 limit = _mm512_set1_ps(60.0f);
  __m512 exponent = _mm512_mul_ps(x, _mm512_set1_ps(2 * kLog2E / cap));
  exponent = _mm512_max_ps(_mm512_min_ps(exponent, limit), _mm512_sub_ps(_mm512_setzero_ps(), limit));
  const __m512 e = Exp2(exponent);
  const __m512 tanh = _mm512_div_ps(_mm512_sub_ps(e, one), _mm512_add_ps(e, one));
  return _mm512_mul_ps(tanh, _mm512_set1_ps(cap * kLog2E));
}

/// Keys [first, last] of a panel that a row sees.
struct Seen {
  int64_t first;
  int64_t last;
};

inline __mmask16 SeenLanes(Seen seen, int64_t vector) {
  const int64_t first = std::clamp<int64_t>(seen.first - 16 * vector, 0, 16);
  const int64_t last = std::clamp<int64_t>(seen.last + 1 - 16 * vector, 0, 16);
  return static_cast<__mmask16>(((1u << last) - 1) & ~((1u << first) - 1));
}

/// Turns the scores of one row, vectors [begin, end), into bf16 weights; updates the row's maximum and sums, and
/// returns the factor of what was summed before. `bias`, where not null, is added for the keys that are seen.
template <bool kWhole>
inline float Soften(const AttentionOptions& options, Seen seen, const float* bias, int64_t begin, int64_t end,
                    const float* scores, uint16_t* weights, float& maximum, float* sums) {
  constexpr int64_t kVectors = kKeys / 16;
  const __m512 scale = _mm512_set1_ps(options.softcap > 0 ? options.scale : options.scale * kLog2E);
  __m512 x[kVectors];
  __m512 largest = _mm512_set1_ps(maximum);
#pragma GCC unroll 8
  for (int64_t j = 0; j < kVectors; ++j) {
    if (!kWhole && (j < begin || j >= end)) continue;
    x[j] = _mm512_mul_ps(_mm512_loadu_ps(scores + 16 * j), scale);
    if (options.softcap > 0) x[j] = Cap(x[j], options.softcap);
    if (bias != nullptr) {
      const __m512 added = _mm512_maskz_loadu_ps(SeenLanes(seen, j), bias + 16 * j);
      x[j] = _mm512_fmadd_ps(added, _mm512_set1_ps(kLog2E), x[j]);
    }
    if (!kWhole) x[j] = _mm512_mask_mov_ps(_mm512_set1_ps(kHidden), SeenLanes(seen, j), x[j]);
    largest = _mm512_max_ps(largest, x[j]);
  }
  const float top = _mm512_reduce_max_ps(largest);
  const __m512 now = _mm512_set1_ps(top);
  float factor = 1;
  __m512 sum = _mm512_loadu_ps(sums);
  if (top != maximum) {
    factor = _mm512_cvtss_f32(Exp2(_mm512_sub_ps(_mm512_set1_ps(maximum), now)));
    sum = _mm512_mul_ps(sum, _mm512_set1_ps(factor));
    maximum = top;
  }
#pragma GCC unroll 8
  for (int64_t j = 0; j < kVectors; ++j) {
    if (!kWhole && (j < begin || j >= end)) continue;
    const __m512 weight = Exp2(_mm512_sub_ps(x[j], now));
    sum = _mm512_add_ps(sum, weight);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights + 16 * j),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(weight)));
  }
  _mm512_storeu_ps(sums, sum);
  return factor;
}

// ---- Packing ---------------------------------------------------------------------------------------------------

void Pack(const AttentionCall& call, int64_t kv_head, int64_t block, std::byte* memory) {
  const int64_t head_dim = call.head_dim();
  const int64_t depth = KeyDepth(head_dim);
  const int64_t width = ValueWidth(head_dim);
  const int64_t begin = block * kKeys;
  const int64_t first = std::max<int64_t>(0, call.first_key() - begin);
  const int64_t count = std::min(kKeys, call.keys() - begin);
  auto* keys = reinterpret_cast<uint16_t*>(memory);
  uint16_t* values = keys + kKeys * depth;
  if (first > 0 || count < kKeys || depth != head_dim || width != head_dim) {
    std::memset(memory, 0, static_cast<size_t>(PanelElements(head_dim)) * sizeof(uint16_t));
  }
  for (int64_t j = first; j < count; ++j) {
    const BFloat16* k = call.k.As<BFloat16>() + (begin + j) * call.k.row_stride() + kv_head * head_dim;
    const BFloat16* v = call.v.As<BFloat16>() + (begin + j) * call.v.row_stride() + kv_head * head_dim;
    int64_t i = 0;
    for (; i + 2 <= head_dim; i += 2) std::memcpy(keys + i * kKeys + 2 * j, k + i, 2 * sizeof(uint16_t));
    if (i < head_dim) keys[i * kKeys + 2 * j] = k[i].bits;
    uint16_t* row = values + j / 2 * 2 * width + j % 2;
    for (i = 0; i < head_dim; ++i) row[2 * i] = v[i].bits;
  }
}

// ---- A tile of rows --------------------------------------------------------------------------------------------

/// out = sums / weight for one row.
inline void Finish(const float* output, const float* sums, BFloat16* out, int64_t head_dim) {
  const __m512 inverse = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(_mm512_loadu_ps(sums)));
  for (int64_t j = 0; j < head_dim; j += 16) {
    const __m512 value = _mm512_mul_ps(_mm512_loadu_ps(output + j), inverse);
    const auto lanes = static_cast<__mmask16>((1u << std::min<int64_t>(16, head_dim - j)) - 1);
    _mm256_mask_storeu_epi16(out + j, lanes, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
  }
}

template <typename Products>
void Tile(const AttentionCall& call, int64_t kv_head, int64_t row_begin, int64_t row_end, const std::byte* panels,
          int64_t first_block, std::byte* memory) {
  const int64_t head_dim = call.head_dim();
  const int64_t depth = KeyDepth(head_dim);
  const int64_t width = ValueWidth(head_dim);
  const int64_t count = row_end - row_begin;
  const int64_t rounded = (count + kStep - 1) / kStep * kStep;
  const Workspace work(memory, head_dim);

  std::memset(work.queries, 0, static_cast<size_t>(rounded * depth) * sizeof(uint16_t));
  std::fill_n(work.output, rounded * width, 0.0f);
  std::fill_n(work.sums, rounded * 16, 0.0f);
  std::fill_n(work.maxima, rounded, kNothingYet);
  std::memset(work.weights, 0, static_cast<size_t>(kStep * kKeys) * sizeof(uint16_t));
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(work.queries + i * depth, call.q.As<BFloat16>() + call.Offset(call.q, kv_head, row_begin + i),
                static_cast<size_t>(head_dim) * sizeof(uint16_t));
  }

  Products::Begin();
  const auto blocks = call.BlocksOf(row_begin, row_end, kKeys);
  for (int64_t block = blocks.begin; block < blocks.end; ++block) {
    const auto* keys = reinterpret_cast<const uint16_t*>(panels) + (block - first_block) * PanelElements(head_dim);
    const uint16_t* values = keys + kKeys * depth;
    const int64_t base = block * kKeys;
    for (int64_t i = 0; i < rounded && i < count; i += kStep) {
      const int64_t last_row = std::min(i + kStep, count) - 1;
      const int64_t lowest = call.PositionOf(row_begin + i);
      const int64_t highest = call.PositionOf(row_begin + last_row);
      // The part of the panel that any of these rows sees, in whole steps.
      int64_t begin = 0;
      int64_t end = kKeys;
      if (call.options.causal == CausalWork::kSkip) {
        begin = std::clamp<int64_t>(call.FirstSeen(lowest) - base, 0, kKeys) / kStep * kStep;
        end = (std::clamp<int64_t>(highest + 1 - base, 0, kKeys) + kStep - 1) / kStep * kStep;
        if (begin >= end) continue;
      }
      Products::Multiply(work.queries + i * depth, depth, keys + 2 * begin, kKeys, depth, false, work.scores + begin,
                         kKeys, end - begin);
      const bool whole = base >= call.FirstSeen(highest) && base + kKeys - 1 <= lowest;
      for (int64_t r = i; r <= last_row; ++r) {
        const int64_t own = call.PositionOf(row_begin + r);
        const float* scores = work.scores + (r - i) * kKeys;
        uint16_t* weights = work.weights + (r - i) * kKeys;
        const Seen seen{call.FirstSeen(own) - base, own - base};
        const float* bias = call.KeyBias(kv_head, row_begin + r, base);
        const float factor = whole ? Soften<true>(call.options, seen, bias, 0, kKeys / 16, scores, weights,
                                                  work.maxima[r], work.sums + r * 16)
                                   : Soften<false>(call.options, seen, bias, begin / 16, end / 16, scores, weights,
                                                   work.maxima[r], work.sums + r * 16);
        if (factor == 1) continue;
        float* output = work.output + r * width;
        for (int64_t j = 0; j < width; j += 16) {
          _mm512_storeu_ps(output + j, _mm512_mul_ps(_mm512_loadu_ps(output + j), _mm512_set1_ps(factor)));
        }
      }
      Products::Multiply(work.weights + begin, kKeys, values + begin * width, width, end - begin, true,
                         work.output + i * width, width, width);
    }
  }
  Products::End();

  for (int64_t i = 0; i < count; ++i) {
    Finish(work.output + i * width, work.sums + i * 16,
           call.out.As<BFloat16>() + call.Offset(call.out, kv_head, row_begin + i), head_dim);
  }
}

HWY_POP_ATTRIBUTES

/// Whether the processor has tiles and the kernel lets this process use them.
bool HasTiles() {
  constexpr int64_t kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int64_t kTileData = 18;               // XFEATURE_XTILEDATA
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  constexpr unsigned kTilesOfBf16 = (1u << 22) | (1u << 24);  // amx_bf16, amx_tile
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kTilesOfBf16) == kTilesOfBf16 &&
         ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

std::optional<AttentionKernel> Bf16Attention() {
  if (!CpuHasNativeBf16()) return std::nullopt;
  static const bool tiles = HasTiles();
  return AttentionKernel{
      kKeys,
      kTileRows,
      [](int64_t head_dim) { return static_cast<size_t>(PanelElements(head_dim)) * sizeof(uint16_t); },
      &Workspace::Bytes,
      &Pack,
      tiles ? &Tile<Tiles> : &Tile<Vectors>};
}

}  // namespace runahead::cpu

#else

namespace runahead::cpu {

std::optional<AttentionKernel> Bf16Attention() { return std::nullopt; }

}  // namespace runahead::cpu

#endif
