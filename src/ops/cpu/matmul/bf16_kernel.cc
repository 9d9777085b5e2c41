// Products of bf16 pairs in AVX-512 vectors (VDPBF16PS).
#include <hwy/base.h>

#include "ops/cpu/matmul/kernel.h"

#if HWY_ARCH_X86_64

#if defined(__GNUC__) && !defined(__clang__)
// The compiler's own intrinsics leave values undefined on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "ops/cpu/matmul/panels.h"
#include "ops/cpu/matmul/transpose_avx512.h"
#include "ops/cpu/processor.h"

namespace runahead::cpu {
namespace {

constexpr int kRows = 14;
constexpr int kVectors = 2;
constexpr int kFeatures = 16 * kVectors;
constexpr int64_t kLine = 64;  // bytes that caches move

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")

template <int kTileRows>
void MultiplyTile(const std::byte* slice, const std::byte* panel, int64_t units, bool accumulate, float* sums) {
  __m512 sum[kTileRows][kVectors];
#pragma GCC unroll 14
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      sum[i][v] = accumulate ? _mm512_loadu_ps(sums + i * kFeatures + 16 * v) : _mm512_setzero_ps();
    }
  }
  for (int64_t k = 0; k < units; ++k) {
    __m512bh weight[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) weight[v] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(panel + 64 * v));
#pragma GCC unroll 14
    for (int i = 0; i < kTileRows; ++i) {
      int pair = 0;
      std::memcpy(&pair, slice + 4 * i, sizeof pair);
      const auto value = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[i][v] = _mm512_dpbf16_ps(sum[i][v], weight[v], value);
    }
    slice += 4 * kTileRows;
    panel += 4 * kFeatures;
  }
#pragma GCC unroll 14
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(sums + i * kFeatures + 16 * v, sum[i][v]);
  }
}

constexpr int kDirectRows = 8;

/// Sums of kTileRows rows, from weights that are transposed in registers.
template <int kTileRows>
void MultiplyDirectly(const std::byte* slice, const DirectPanel& panel, bool accumulate, float* sums) {
  __m512 sum[kTileRows][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      sum[i][v] = accumulate ? _mm512_loadu_ps(sums + i * kFeatures + 16 * v) : _mm512_setzero_ps();
    }
  }
  const int64_t step_bytes = 16 * panel.ahead_bytes / std::max<int64_t>(panel.units, 1) + 1;
  const std::byte* ahead = panel.ahead;
  const std::byte* ahead_end = panel.ahead + panel.ahead_bytes;
  for (int64_t unit = 0; unit < panel.units; unit += 16) {
    for (const std::byte* end = std::min(ahead_end, ahead + step_bytes); ahead < end; ahead += kLine) {
      __builtin_prefetch(ahead, 0, 2);
    }
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      __m512i units[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        units[i] = _mm512_loadu_si512(panel.rows + (16 * v + i) * panel.stride_bytes + 4 * unit);
      }
      Transpose(units);
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k) {
#pragma GCC unroll 8
        for (int i = 0; i < kTileRows; ++i) {
          int pair = 0;
          std::memcpy(&pair, slice + 4 * (k * kTileRows + i), sizeof pair);
          sum[i][v] = _mm512_dpbf16_ps(sum[i][v], reinterpret_cast<__m512bh>(units[k]),
                                       reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair)));
        }
      }
    }
    slice += 64 * kTileRows;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(sums + i * kFeatures + 16 * v, sum[i][v]);
  }
}

double Spin(int64_t rounds) {
  constexpr int kSums = 12;  // more than a processor has in flight
  __m512 sum[kSums];
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  const auto factor = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3e003e00));  // eighths
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], factor, factor);
  }
  for (int i = 1; i < kSums; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  volatile float kept = _mm512_cvtss_f32(sum[0]);
  (void)kept;
  return 4.0 * 16 * kSums * static_cast<double>(rounds);
}

HWY_POP_ATTRIBUTES

template <size_t... kIndices>
constexpr std::array<TileFunction, kRows + 1> TilesOf(std::index_sequence<kIndices...> /*rows less one*/) {
  return {nullptr, &MultiplyTile<static_cast<int>(kIndices) + 1>...};
}
template <size_t... kIndices>
constexpr std::array<DirectFunction, kDirectRows + 1> DirectOf(std::index_sequence<kIndices...> /*rows less one*/) {
  return {nullptr, &MultiplyDirectly<static_cast<int>(kIndices) + 1>...};
}
constexpr std::array<DirectFunction, kDirectRows + 1> kDirect = DirectOf(std::make_index_sequence<kDirectRows>());
constexpr std::array<TileFunction, kRows + 1> kTiles = TilesOf(std::make_index_sequence<kRows>());

Kernel MakeKernel() {
  Kernel kernel;
  kernel.name = "AVX512_BF16";
  kernel.arithmetic = DType::kBF16;
  kernel.most_slice_rows = kRows;
  kernel.panel_features = kFeatures;
  kernel.pack_panel = &PackPanel;
  kernel.multiply = &MultiplyPanels;
  kernel.tiles = kTiles.data();
  kernel.direct = kDirect.data();
  kernel.most_direct_rows = kDirectRows;
  kernel.direct_units = 16;
  kernel.block_rows = kBlockRows;
  kernel.block_panels = kAnyNumber;
  kernel.block_bytes = kBlockBytes;
  kernel.spin = &Spin;
  return kernel;
}

}  // namespace

const Kernel* Bf16VectorKernel() {
  static const Kernel kernel = MakeKernel();
  return HasBf16Vectors() ? &kernel : nullptr;
}

}  // namespace runahead::cpu

#else

namespace runahead::cpu {

const Kernel* Bf16VectorKernel() { return nullptr; }

}  // namespace runahead::cpu

#endif
