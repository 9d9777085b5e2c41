// Products of int8 in AVX-512 vectors (VPDPBUSD), and of int4 whose codes they take as they are.
#include <hwy/base.h>

#include "ops/cpu/matmul/kernel.h"

#if HWY_ARCH_X86_64

#if defined(__GNUC__) && !defined(__clang__)
// The compiler's own intrinsics leave values undefined on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <array>
#include <cstring>
#include <utility>

#include "ops/cpu/matmul/integer_panels.h"
#include "ops/cpu/matmul/panels.h"
#include "ops/cpu/processor.h"

namespace runahead::cpu {
namespace {

constexpr int kRows = 14;
constexpr int kVectors = 2;
constexpr int kFeatures = 16 * kVectors;

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")

inline int Four(const std::byte* codes) {
  int four = 0;
  std::memcpy(&four, codes, sizeof four);
  return four;
}

/// sum += weights, unsigned bytes, times the four codes at `x`, for all lanes. In own assembly, since GCC 12 moves
/// sums to memory and back around the intrinsic.
inline void AddProducts(__m512i& sum, __m512i weights, const std::byte* x) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(*reinterpret_cast<const char(*)[4]>(x)));
}

template <int kTileRows>
void MultiplyTile(const IntegerBlock& block, float* sums) {
  __m512i sum[kTileRows][kVectors];
#pragma GCC unroll 14
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[i][v] = _mm512_set1_epi32(block.offsets[i]);
  }
  const std::byte* x = block.x;
  const std::byte* codes = block.codes;
  for (int64_t k = 0; k < block.units; ++k) {
    __m512i weight[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) weight[v] = _mm512_loadu_si512(codes + 64 * v);
#pragma GCC unroll 14
    for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) AddProducts(sum[i][v], weight[v], x + 4 * i);
    }
    x += 4 * kTileRows;
    codes += 4 * kFeatures;
  }
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const __m512 scale = _mm512_loadu_ps(block.scales + 16 * v);
#pragma GCC unroll 14
    for (int i = 0; i < kTileRows; ++i) {
      float* to = sums + i * kFeatures + 16 * v;
      const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(block.row_scales[i]));
      _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i][v]), both, _mm512_loadu_ps(to)));
    }
  }
}

/// One row: sums of even and of odd units, so that no addition waits for the one before.
void MultiplyOne(const IntegerBlock& block, float* sums) {
  constexpr int kChains = 4;
  constexpr int64_t kAhead = 2048;  // bytes
  __m512i sum[kChains][kVectors];
#pragma GCC unroll 4
  for (int c = 0; c < kChains; ++c) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[c][v] = _mm512_set1_epi32(c == 0 ? block.offsets[0] : 0);
  }
  const std::byte* codes = block.codes;
  for (int64_t k = 0; k < block.units; k += kChains) {
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      const __m512i four = _mm512_set1_epi32(Four(block.x + 4 * (k + c)));
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        const std::byte* from = codes + 4 * kFeatures * c + 64 * v;
        _mm_prefetch(reinterpret_cast<const char*>(from + kAhead), _MM_HINT_T0);
        sum[c][v] = _mm512_dpbusd_epi32(sum[c][v], _mm512_loadu_si512(from), four);
      }
    }
    codes += 4 * kFeatures * kChains;
  }
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const __m512i all =
        _mm512_add_epi32(_mm512_add_epi32(sum[0][v], sum[1][v]), _mm512_add_epi32(sum[2][v], sum[3][v]));
    const __m512 both = _mm512_mul_ps(_mm512_loadu_ps(block.scales + 16 * v), _mm512_set1_ps(block.row_scales[0]));
    _mm512_storeu_ps(sums + 16 * v, _mm512_fmadd_ps(_mm512_cvtepi32_ps(all), both, _mm512_loadu_ps(sums + 16 * v)));
  }
}

/// One row times nibbles: the sum of a group's codes with x times its step, and its zero times the sum of x.
void MultiplyNibbles(const NibbleBlock& block, float* sums) {
  constexpr int64_t kAhead = 2048;  // bytes
  const __m512i low = _mm512_set1_epi8(15);
  __m512i total[kVectors] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  const std::byte* pair = block.panel + 4 * kFeatures;
  const std::byte* x = block.x;
  const int16_t* group_sums = block.group_sums;
  for (int64_t unit = 0; unit < block.units; unit += 2 * kGroupUnits) {
    __m512i sum[2][kVectors];
#pragma GCC unroll 2
    for (int g = 0; g < 2; ++g) {
      const std::byte* rows = pair + 4 * kFeatures + g * kGroupDepth / 2 * kFeatures;
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        __m512i lower = _mm512_setzero_si512();
        __m512i upper = _mm512_setzero_si512();
#pragma GCC unroll 4
        for (int k = 0; k < kGroupUnits / 2; ++k) {
          const std::byte* from = rows + 4 * kFeatures * k + 64 * v;
          _mm_prefetch(reinterpret_cast<const char*>(from + kAhead), _MM_HINT_T0);
          const __m512i both = _mm512_loadu_si512(from);
          lower = _mm512_dpbusd_epi32(lower, _mm512_and_si512(both, low), _mm512_set1_epi32(Four(x + 4 * k)));
          upper = _mm512_dpbusd_epi32(upper, _mm512_and_si512(_mm512_srli_epi16(both, 4), low),
                                      _mm512_set1_epi32(Four(x + 4 * (k + kGroupUnits / 2))));
        }
        sum[g][v] = _mm512_add_epi32(lower, upper);
      }
      x += kGroupDepth;
    }
    int two_sums = 0;
    std::memcpy(&two_sums, group_sums, sizeof two_sums);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const auto bytes_at = [&](const std::byte* from) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
      };
      const __m512i zeros = _mm512_cvtepi8_epi16(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pair + 32 * v)));  // [16 features, 2 groups]
      total[v] = _mm512_add_epi32(total[v], _mm512_madd_epi16(zeros, _mm512_set1_epi32(two_sums)));
#pragma GCC unroll 2
      for (int g = 0; g < 2; ++g) {
        const __m512i step = _mm512_cvtepu8_epi32(bytes_at(pair + (2 + g) * kFeatures + 16 * v));
        total[v] = _mm512_add_epi32(total[v], _mm512_mullo_epi32(sum[g][v], step));
      }
    }
    group_sums += 2;
    pair += kPairBytes * kFeatures;
  }
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const __m512 both = _mm512_mul_ps(_mm512_loadu_ps(block.panel + 64 * v), _mm512_set1_ps(block.row_scale));
    _mm512_storeu_ps(sums + 16 * v,
                     _mm512_fmadd_ps(_mm512_cvtepi32_ps(total[v]), both, _mm512_loadu_ps(sums + 16 * v)));
  }
}

/// Bytes of codes: those of nibbles in the lower and in the upper halves of 16 bits, which they fill to 255 at most.
inline __m512i CodesOf(__m512i even, __m512i odd, __m512i step, __m512i zero) {
  const __m512i first = _mm512_add_epi16(_mm512_mullo_epi16(even, step), zero);
  const __m512i second = _mm512_add_epi16(_mm512_mullo_epi16(odd, step), zero);
  return _mm512_or_si512(first, _mm512_slli_epi16(second, 8));
}

void Expand(const Kernel& /*kernel*/, const std::byte* pair, int64_t units, std::byte* codes) {
  const __m512i low = _mm512_set1_epi16(15);
  for (int64_t unit = 0; unit < units; unit += 2 * kGroupUnits) {
    for (int g = 0; g < 2; ++g) {
      const std::byte* rows = pair + 4 * kFeatures + g * kGroupDepth / 2 * kFeatures;
      std::byte* to = codes + g * kGroupDepth * kFeatures;
      for (int v = 0; v < kVectors; ++v) {
        const __m512i step32 = _mm512_cvtepu8_epi32(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(pair + (2 + g) * kFeatures + 16 * v)));
        const __m512i step = _mm512_or_si512(step32, _mm512_slli_epi32(step32, 16));
        const __m512i zeros =
            _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(pair + 32 * v)));
        const __m512i own = g == 0 ? _mm512_slli_epi32(zeros, 16) : zeros;
        const __m512i zero = _mm512_add_epi16(_mm512_mask_blend_epi16(0x55555555, own, _mm512_srli_epi32(own, 16)),
                                              _mm512_set1_epi16(128));
        for (int64_t k = 0; k < kGroupUnits / 2; ++k) {
          const __m512i both = _mm512_loadu_si512(rows + 4 * kFeatures * k + 64 * v);
          const __m512i lower =
              CodesOf(_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16(both, 8), low), step, zero);
          const __m512i upper =
              CodesOf(_mm512_and_si512(_mm512_srli_epi16(both, 4), low), _mm512_srli_epi16(both, 12), step, zero);
          _mm512_storeu_si512(to + 4 * kFeatures * k + 64 * v, lower);
          _mm512_storeu_si512(to + 4 * kFeatures * (k + kGroupUnits / 2) + 64 * v, upper);
        }
      }
    }
    codes += 2 * kGroupDepth * kFeatures;
    pair += kPairBytes * kFeatures;
  }
}

double Spin(int64_t rounds) {
  constexpr int kSums = 12;  // more than a processor has in flight
  __m512i sum[kSums];
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) sum[i] = _mm512_set1_epi32(i);
  const __m512i factor = _mm512_set1_epi8(1);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sum[i] = _mm512_dpbusd_epi32(sum[i], factor, factor);
  }
  for (int i = 1; i < kSums; ++i) sum[0] = _mm512_add_epi32(sum[0], sum[i]);
  volatile int kept = _mm512_cvtsi512_si32(sum[0]);
  (void)kept;
  return 8.0 * 16 * kSums * static_cast<double>(rounds);
}

HWY_POP_ATTRIBUTES

template <size_t... kIndices>
constexpr std::array<IntegerFunction, kRows + 1> TilesOf(std::index_sequence<kIndices...> /*rows less two*/) {
  return {nullptr, &MultiplyOne, &MultiplyTile<static_cast<int>(kIndices) + 2>...};
}
constexpr std::array<IntegerFunction, kRows + 1> kTiles = TilesOf(std::make_index_sequence<kRows - 1>());

Kernel MakeKernel() {
  Kernel kernel;
  kernel.name = "AVX512_VNNI";
  kernel.most_slice_rows = kRows;
  kernel.panel_features = kFeatures;
  kernel.integers = {kTiles.data(), &MultiplyOne, &MultiplyNibbles, &Expand, false};
  kernel.block_rows = kBlockRows;
  kernel.block_panels = kAnyNumber;
  kernel.block_bytes = kBlockBytes;
  kernel.spin = &Spin;
  return kernel;
}

}  // namespace

const Kernel* VnniKernel() {
  static const Kernel kernel = MakeKernel();
  return HasInt8Vectors() ? &kernel : nullptr;
}

}  // namespace runahead::cpu

#else

namespace runahead::cpu {

const Kernel* VnniKernel() { return nullptr; }

}  // namespace runahead::cpu

#endif
