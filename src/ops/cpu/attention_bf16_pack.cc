// Packing of bf16 keys, values and queries for products of pairs, with AVX-512.
#include <hwy/base.h>

#include "ops/cpu/attention_bf16.h"

#if HWY_ARCH_X86_64

#if defined(__GNUC__) && !defined(__clang__)
// The compiler's own intrinsics leave values undefined on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cstring>

namespace runahead::cpu {

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")

namespace {

/// Rows become columns: to[column * stride + i] = rows[i][j], where column j of each four is kept and the fours lie
/// kFours apart. Of the four fours the first `fours` are written.
template <int kFours>
inline void TransposeRows(__m512i (&rows)[16], uint32_t* to, int64_t stride, int64_t fours = 4) {
  __m512i half[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    half[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    half[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(half[i], half[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(half[i], half[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(half[i + 1], half[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(half[i + 1], half[i + 3]);
  }
  // rows[4 q + c] holds, of rows 4 q to 4 q + 3, columns c, c + 4, c + 8 and c + 12.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i low_even = _mm512_shuffle_i32x4(rows[c], rows[4 + c], 0x88);
    const __m512i low_odd = _mm512_shuffle_i32x4(rows[c], rows[4 + c], 0xdd);
    const __m512i high_even = _mm512_shuffle_i32x4(rows[8 + c], rows[12 + c], 0x88);
    const __m512i high_odd = _mm512_shuffle_i32x4(rows[8 + c], rows[12 + c], 0xdd);
    uint32_t* column = to + c * stride;
    _mm512_storeu_si512(column, _mm512_shuffle_i32x4(low_even, high_even, 0x88));
    _mm512_storeu_si512(column + kFours * stride, _mm512_shuffle_i32x4(low_odd, high_odd, 0x88));
    if (fours <= 2) continue;
    _mm512_storeu_si512(column + 2 * kFours * stride, _mm512_shuffle_i32x4(low_even, high_even, 0xdd));
    _mm512_storeu_si512(column + 3 * kFours * stride, _mm512_shuffle_i32x4(low_odd, high_odd, 0xdd));
  }
}

inline __mmask32 FirstOf32(int64_t n) {
  return static_cast<__mmask32>((uint64_t{1} << std::clamp<int64_t>(n, 0, 32)) - 1);
}
/// Elements i of one vector and i of another side by side; of indices those from 32 on are the second one's.
alignas(64) constexpr uint16_t kInterleave[] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};

/// Rows of keys or values of one kv head in one block; those that no query sees are zeros.
class BlockRows {
 public:
  BlockRows(const AttentionCall& call, const TensorView& view, int64_t kv_head, int64_t block)
      : first_(std::clamp<int64_t>(call.first_key() - block * kKeyBlock, 0, kKeyBlock)),
        last_(std::clamp<int64_t>(call.keys() - block * kKeyBlock, 0, kKeyBlock)),
        features_(view.shape()[2]),
        whole_(first_ == 0 && last_ == kKeyBlock && features_ % kDepth == 0),
        stride_(view.row_stride()),
        rows_(last_ > 0 ? call.BlockOf<BFloat16>(view, kv_head, block) : nullptr) {}

  [[nodiscard]] int64_t features() const { return features_; }
  /// Keys that are worked on, in whole steps.
  [[nodiscard]] int64_t keys() const { return (last_ + kKeyStep - 1) / kKeyStep * kKeyStep; }
  /// kDepth features of key `key` from `feature` on; those behind the last one are 0.
  [[nodiscard]] __m512i Load(int64_t key, int64_t feature) const {
    if (whole_) return _mm512_loadu_si512(rows_ + key * stride_ + feature);
    if (key < first_ || key >= last_) return _mm512_setzero_si512();
    return _mm512_maskz_loadu_epi16(FirstOf32(features_ - feature), rows_ + key * stride_ + feature);
  }

 private:
  int64_t first_;
  int64_t last_;
  int64_t features_;
  bool whole_;  // all keys are seen, and features fill whole steps
  int64_t stride_;
  const BFloat16* rows_;
};

/// Key `key` of a block, of which `keys` holds the features that `rows` has.
inline void PackKey(const BlockRows& rows, int64_t key, uint16_t* keys) {
  for (int64_t i = 0; i < rows.features(); i += kDepth) {
    _mm512_store_si512(keys + i * kKeyBlock + key * kDepth, rows.Load(key, i));
  }
}

/// Elements of a panel's keys in front of those that only keys have.
inline int64_t LatentElements(const HeadSize& size) {
  return size.latent ? HeadSize{size.value}.summed(kDepth) * kKeyBlock : 0;
}

/// Looks for infinities and NaN among bf16 values.
class LargestExponent {
 public:
  LargestExponent() : largest_(_mm512_setzero_si512()) {}  // by hand: what the compiler writes has no vectors
  void See(__m512i values) {
    largest_ = _mm512_max_epu16(largest_, _mm512_and_si512(values, _mm512_set1_epi16(0x7fff)));
  }
  [[nodiscard]] bool finite() const { return _mm512_cmpge_epu16_mask(largest_, _mm512_set1_epi16(0x7f80)) == 0; }

 private:
  __m512i largest_;
};

/// States in the panel's header whether the values, `count` from `values` on, are finite, and clears those that are
/// not.
void FinishPanel(bool finite, uint16_t* values, int64_t count, std::byte* panel) {
  constexpr uint16_t kExponent = 0x7f80;
  reinterpret_cast<PanelHeader*>(panel)->all_finite = finite;
  if (finite) return;
  for (int64_t i = 0; i < count; ++i) {
    if ((values[i] & kExponent) == kExponent) values[i] = 0;
  }
}

}  // namespace

void PackForVectors(const AttentionCall& call, int64_t kv_head, int64_t block, std::byte* panel) {
  auto* keys = reinterpret_cast<uint16_t*>(panel + sizeof(PanelHeader));
  const HeadSize size = call.size();
  const int64_t latent = LatentElements(size);
  const BlockRows key_rows(call, call.cache.k, kv_head, block);
  const BlockRows rows(call, call.cache.v, kv_head, block);
  for (int64_t key = 0; key < key_rows.keys(); ++key) {
    PackKey(key_rows, key, keys + latent);
    if (size.latent) PackKey(rows, key, keys);
  }
  const int64_t width = ValueWidth(size.value);
  uint16_t* values = keys + KeyRows(size) * kKeyBlock * kDepth;
  const __m512i low = _mm512_load_si512(kInterleave);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  LargestExponent seen;
  for (int64_t j = 0; j < rows.keys(); j += 2) {
    for (int64_t i = 0; i < width; i += 32) {
      const __m512i even = rows.Load(j, i);
      const __m512i odd = rows.Load(j + 1, i);
      seen.See(even);
      seen.See(odd);
      uint16_t* to = values + j * width + 2 * i;
      _mm512_store_si512(to, _mm512_permutex2var_epi16(even, low, odd));
      if (i + 16 < width) _mm512_store_si512(to + 32, _mm512_permutex2var_epi16(even, high, odd));
    }
  }
  FinishPanel(seen.finite(), values, rows.keys() * width, panel);
}

void PackForTiles(const AttentionCall& call, int64_t kv_head, int64_t block, std::byte* panel) {
  auto* keys = reinterpret_cast<uint16_t*>(panel + sizeof(PanelHeader));
  const HeadSize size = call.size();
  const int64_t latent = LatentElements(size);
  const BlockRows key_rows(call, call.cache.k, kv_head, block);
  const int64_t width = ValueWidth(size.value);
  uint16_t* values = keys + KeyRows(size) * kKeyBlock * kDepth;
  const BlockRows rows(call, call.cache.v, kv_head, block);
  const RowsAhead keys_ahead(call, call.cache.k, kv_head, block);
  const RowsAhead values_ahead(call, call.cache.v, kv_head, block);
  LargestExponent seen;
  for (int64_t j = 0; j < rows.keys(); j += kDepth) {
    for (int64_t key = j; key < j + kDepth; ++key) {
      keys_ahead.Fetch(key + kDepth, key + kDepth + 1);
      PackKey(key_rows, key, keys + latent);
      if (size.latent) PackKey(rows, key, keys);
    }
    for (int64_t i = 0; i < width; i += 32) {
      // Unpacking takes the lower, or the higher, four of each eight features.
      __m512i lower[16];
      __m512i higher[16];
      for (int64_t pair = 0; pair < 16; ++pair) {
        const int64_t key = j + 2 * pair;
        if (i == 0) values_ahead.Fetch(key + kDepth, key + kDepth + 2);
        const __m512i even = rows.Load(key, i);
        const __m512i odd = rows.Load(key + 1, i);
        seen.See(even);
        seen.See(odd);
        lower[pair] = _mm512_unpacklo_epi16(even, odd);
        higher[pair] = _mm512_unpackhi_epi16(even, odd);
      }
      auto* to = reinterpret_cast<uint32_t*>(values + j * width + i * kDepth);
      const int64_t fours = std::min<int64_t>(4, (width - i) / 8);
      TransposeRows<8>(lower, to, kDepth / 2, fours);
      TransposeRows<8>(higher, to + 4 * kDepth / 2, kDepth / 2, fours);
    }
  }
  FinishPanel(seen.finite(), values, rows.keys() * width, panel);
}

namespace {

/// The queries of a group in one of its tensors, whose heads have `features`: [features / 2, lanes] pairs.
void PackFeatures(const AttentionCall& call, const RowGroup& rows, const TensorView& view, uint32_t* queries) {
  const int64_t features = view.shape()[2];
  for (int64_t lane = 0; lane < rows.lanes; lane += 16) {
    for (int64_t i = 0; i < features; i += kDepth) {
      __m512i own[16];
      for (int64_t r = 0; r < 16; ++r) {
        own[r] = lane + r < rows.rows()
                     ? _mm512_maskz_loadu_epi16(
                           FirstOf32(features - i),
                           view.As<BFloat16>() + call.Offset(view, rows.kv_head, rows.begin + lane + r) + i)
                     : _mm512_setzero_si512();
      }
      if (rows.lanes >= 16) {
        TransposeRows<4>(own, queries + i / 2 * rows.lanes + lane, rows.lanes);
        continue;
      }
      alignas(64) uint32_t columns[16][16];
      TransposeRows<4>(own, columns[0], 16);
      for (int64_t pair = 0; pair < 16; ++pair) {
        std::memcpy(queries + (i / 2 + pair) * rows.lanes, columns[pair], sizeof(uint32_t) * 8);
      }
    }
  }
}

}  // namespace

void PackQueriesBf16(const AttentionCall& call, const RowGroup& rows, std::byte* memory) {
  auto* queries = reinterpret_cast<uint32_t*>(memory);
  PackFeatures(call, rows, call.q, queries);
  if (!call.size().latent) return;
  PackFeatures(call, rows, call.options.rotated,
               queries + HeadSize{call.size().value}.summed(kDepth) / 2 * rows.lanes);
}

HWY_POP_ATTRIBUTES

}  // namespace runahead::cpu

#endif
