// Products of int8 and int4 in AVX2 vectors, by exact sums of 16-bit pairs.
#include <hwy/base.h>

#include "ops/cpu/matmul/kernel.h"

#if HWY_ARCH_X86_64

#include <immintrin.h>

#include <array>
#include <cstring>
#include <utility>

#include "ops/cpu/matmul/integer_panels.h"
#include "ops/cpu/matmul/panels.h"
#include "ops/cpu/processor.h"

namespace runahead::cpu {
namespace {

constexpr int kRows = 4;
constexpr int kVectors = 2;
constexpr int kFeatures = 8 * kVectors;

HWY_PUSH_ATTRIBUTES("avx2,fma")

inline __m256i Four(const std::byte* codes) {
  int four = 0;
  std::memcpy(&four, codes, sizeof four);
  return _mm256_set1_epi32(four);
}
inline __m256i Load(const std::byte* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
inline __m128i LoadHalf(const std::byte* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }
inline __m128i LoadQuarter(const std::byte* from) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)); }

/// sums += integers * row's scale * features' scales.
inline void AddScaled(__m256i integers, const float* scales, float row_scale, float* sums) {
  const __m256 both = _mm256_mul_ps(_mm256_loadu_ps(scales), _mm256_set1_ps(row_scale));
  _mm256_storeu_ps(sums, _mm256_fmadd_ps(_mm256_cvtepi32_ps(integers), both, _mm256_loadu_ps(sums)));
}

template <int kTileRows>
void MultiplyTile(const IntegerBlock& block, float* sums) {
  const __m256i low = _mm256_set1_epi16(255);
  __m256i sum[kTileRows][kVectors];
#pragma GCC unroll 4
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[i][v] = _mm256_set1_epi32(block.offsets[i]);
  }
  const std::byte* x = block.x;
  const std::byte* codes = block.codes;
  for (int64_t k = 0; k < block.units; ++k) {
    __m256i even[kVectors];
    __m256i odd[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const __m256i weights = Load(codes + 32 * v);
      even[v] = _mm256_and_si256(weights, low);
      odd[v] = _mm256_srli_epi16(weights, 8);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kTileRows; ++i) {
      const __m256i four = Four(x + 4 * i);
      const __m256i even_x = _mm256_srai_epi16(_mm256_slli_epi16(four, 8), 8);
      const __m256i odd_x = _mm256_srai_epi16(four, 8);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        sum[i][v] = _mm256_add_epi32(sum[i][v], _mm256_madd_epi16(even[v], even_x));
        sum[i][v] = _mm256_add_epi32(sum[i][v], _mm256_madd_epi16(odd[v], odd_x));
      }
    }
    x += 4 * kTileRows;
    codes += 4 * kFeatures;
  }
#pragma GCC unroll 4
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      AddScaled(sum[i][v], block.scales + 8 * v, block.row_scales[i], sums + i * kFeatures + 8 * v);
    }
  }
}

/// Eight products of pairs of nibbles and codes fit 16 bits: 8 * 2 * 15 * 127 is 30,480.
void MultiplyNibbles(const NibbleBlock& block, float* sums) {
  const __m256i low = _mm256_set1_epi8(15);
  __m256i total[kVectors] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  const std::byte* pair = block.panel + 4 * kFeatures;
  const std::byte* x = block.x;
  const int16_t* group_sums = block.group_sums;
  for (int64_t unit = 0; unit < block.units; unit += 2 * kGroupUnits) {
#pragma GCC unroll 2
    for (int g = 0; g < 2; ++g) {
      const std::byte* rows = pair + 4 * kFeatures + g * kGroupDepth / 2 * kFeatures;
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        __m256i lower = _mm256_setzero_si256();
        __m256i upper = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int k = 0; k < kGroupUnits / 2; ++k) {
          const __m256i both = Load(rows + 4 * kFeatures * k + 32 * v);
          const __m256i first = _mm256_and_si256(both, low);
          const __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
          lower = _mm256_add_epi16(lower, _mm256_maddubs_epi16(first, Four(x + 4 * k)));
          upper = _mm256_add_epi16(upper, _mm256_maddubs_epi16(second, Four(x + 4 * (k + kGroupUnits / 2))));
        }
        const __m256i step32 = _mm256_cvtepu8_epi32(LoadQuarter(pair + (2 + g) * kFeatures + 8 * v));
        const __m256i step = _mm256_or_si256(step32, _mm256_slli_epi32(step32, 16));
        total[v] = _mm256_add_epi32(total[v], _mm256_madd_epi16(_mm256_add_epi16(lower, upper), step));
      }
      x += kGroupDepth;
    }
    int two_sums = 0;
    std::memcpy(&two_sums, group_sums, sizeof two_sums);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const __m256i zeros = _mm256_cvtepi8_epi16(LoadHalf(pair + 16 * v));  // [8 features, 2 groups]
      total[v] = _mm256_add_epi32(total[v], _mm256_madd_epi16(zeros, _mm256_set1_epi32(two_sums)));
    }
    group_sums += 2;
    pair += kPairBytes * kFeatures;
  }
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    AddScaled(total[v], reinterpret_cast<const float*>(block.panel) + 8 * v, block.row_scale, sums + 8 * v);
  }
}

/// Bytes of codes: those of nibbles in the lower and in the upper halves of 16 bits, which they fill to 255 at most.
inline __m256i CodesOf(__m256i even, __m256i odd, __m256i step, __m256i zero) {
  const __m256i first = _mm256_add_epi16(_mm256_mullo_epi16(even, step), zero);
  const __m256i second = _mm256_add_epi16(_mm256_mullo_epi16(odd, step), zero);
  return _mm256_or_si256(first, _mm256_slli_epi16(second, 8));
}

void Expand(const Kernel& /*kernel*/, const std::byte* pair, int64_t units, std::byte* codes) {
  const __m256i low = _mm256_set1_epi16(15);
  for (int64_t unit = 0; unit < units; unit += 2 * kGroupUnits) {
    for (int g = 0; g < 2; ++g) {
      const std::byte* rows = pair + 4 * kFeatures + g * kGroupDepth / 2 * kFeatures;
      std::byte* to = codes + g * kGroupDepth * kFeatures;
      for (int v = 0; v < kVectors; ++v) {
        const __m256i step32 = _mm256_cvtepu8_epi32(LoadQuarter(pair + (2 + g) * kFeatures + 8 * v));
        const __m256i step = _mm256_or_si256(step32, _mm256_slli_epi32(step32, 16));
        const __m256i zeros = _mm256_cvtepi8_epi16(LoadHalf(pair + 16 * v));
        const __m256i own = g == 0 ? _mm256_slli_epi32(zeros, 16) : zeros;
        const __m256i zero =
            _mm256_add_epi16(_mm256_blend_epi16(own, _mm256_srli_epi32(own, 16), 0x55), _mm256_set1_epi16(128));
        for (int64_t k = 0; k < kGroupUnits / 2; ++k) {
          const __m256i both = Load(rows + 4 * kFeatures * k + 32 * v);
          const __m256i lower =
              CodesOf(_mm256_and_si256(both, low), _mm256_and_si256(_mm256_srli_epi16(both, 8), low), step, zero);
          const __m256i upper =
              CodesOf(_mm256_and_si256(_mm256_srli_epi16(both, 4), low), _mm256_srli_epi16(both, 12), step, zero);
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 4 * kFeatures * k + 32 * v), lower);
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 4 * kFeatures * (k + kGroupUnits / 2) + 32 * v), upper);
        }
      }
    }
    codes += 2 * kGroupDepth * kFeatures;
    pair += kPairBytes * kFeatures;
  }
}

double Spin(int64_t rounds) {
  constexpr int kSums = 12;  // more than a processor has in flight
  __m256i sum[kSums];
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) sum[i] = _mm256_set1_epi32(i);
  const __m256i factor = _mm256_set1_epi16(1);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(sum[i], factor));
  }
  for (int i = 1; i < kSums; ++i) sum[0] = _mm256_add_epi32(sum[0], sum[i]);
  volatile int kept = _mm256_cvtsi256_si32(sum[0]);
  (void)kept;
  return 4.0 * 8 * kSums * static_cast<double>(rounds);
}

HWY_POP_ATTRIBUTES

template <size_t... kIndices>
constexpr std::array<IntegerFunction, kRows + 1> TilesOf(std::index_sequence<kIndices...> /*rows less one*/) {
  return {nullptr, &MultiplyTile<static_cast<int>(kIndices) + 1>...};
}
constexpr std::array<IntegerFunction, kRows + 1> kTiles = TilesOf(std::make_index_sequence<kRows>());

Kernel MakeKernel() {
  Kernel kernel;
  kernel.name = "AVX2_INT16";
  kernel.most_slice_rows = kRows;
  kernel.panel_features = kFeatures;
  kernel.integers = {kTiles.data(), kTiles[1], &MultiplyNibbles, &Expand, false};
  kernel.block_rows = kBlockRows;
  kernel.block_panels = kAnyNumber;
  kernel.block_bytes = kBlockBytes;
  kernel.spin = &Spin;
  return kernel;
}

}  // namespace

const Kernel* Avx2IntegerKernel() {
  static const Kernel kernel = MakeKernel();
  return HasAvx2() ? &kernel : nullptr;
}

}  // namespace runahead::cpu

#else

namespace runahead::cpu {

const Kernel* Avx2IntegerKernel() { return nullptr; }

}  // namespace runahead::cpu

#endif
