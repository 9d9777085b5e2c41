// Products in f32: tiles of sums in vector registers, for the widest vectors that the processor has.
#include <array>
#include <utility>

#include "ops/cpu/matmul/kernel.h"
#include "ops/cpu/matmul/panels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/matmul/f32_kernel.cc"
#include <hwy/foreach_target.h>

#include "ops/cpu/matmul/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace runahead::cpu::HWY_NAMESPACE {

// As many sums as fit the registers beside a row's value and the weights: 32 registers with AVX-512 and NEON,
// else 16.
constexpr size_t kRows = kLanes == 16 ? 14 : kLanes == 8 ? 6 : 4;
constexpr size_t kVectors = HWY_ARCH_ARM ? 4 : 2;
constexpr int64_t kLine = 64;  // bytes that caches move
constexpr size_t kFeatures = kVectors * static_cast<size_t>(kLanes);

template <size_t kTileRows>
void MultiplyTile(const std::byte* slice, const std::byte* panel, int64_t units, bool accumulate, float* sums) {
  const FloatTag d;
  const auto* HWY_RESTRICT x = reinterpret_cast<const float*>(slice);
  const auto* HWY_RESTRICT w = reinterpret_cast<const float*>(panel);
  FloatVec sum[kTileRows][kVectors];
#pragma GCC unroll 14
  for (size_t i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v) {
      sum[i][v] = accumulate ? hn::LoadU(d, sums + i * kFeatures + v * hn::MaxLanes(d)) : hn::Zero(d);
    }
  }
  for (int64_t k = 0; k < units; ++k) {
    FloatVec weight[kVectors];
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v) weight[v] = hn::LoadU(d, w + v * hn::MaxLanes(d));
#pragma GCC unroll 14
    for (size_t i = 0; i < kTileRows; ++i) {
      const auto value = hn::Set(d, x[i]);
#pragma GCC unroll 4
      for (size_t v = 0; v < kVectors; ++v) sum[i][v] = hn::MulAdd(value, weight[v], sum[i][v]);
    }
    x += kTileRows;
    w += kFeatures;
  }
#pragma GCC unroll 14
  for (size_t i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v) hn::StoreU(sum[i][v], d, sums + i * kFeatures + v * hn::MaxLanes(d));
  }
}

template <size_t... kIndices>
constexpr std::array<TileFunction, kRows + 1> TilesOf(std::index_sequence<kIndices...> /*rows less one*/) {
  return {nullptr, &MultiplyTile<kIndices + 1>...};
}
constexpr std::array<TileFunction, kRows + 1> kTiles = TilesOf(std::make_index_sequence<kRows>());

#if HWY_TARGET != HWY_SCALAR
constexpr size_t kDirectRows = kLanes == 16 ? 8 : 4;  // more are faster from packed pieces

/// Sums of kTileRows rows, from weights that are transposed in registers.
template <size_t kTileRows, typename T>
void MultiplyDirectlyBy(const float* HWY_RESTRICT x, const DirectPanel& panel, bool accumulate, float* sums) {
  const FloatTag d;
  FloatVec sum[kTileRows][kVectors];
#pragma GCC unroll 8
  for (size_t i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v) {
      sum[i][v] = accumulate ? hn::LoadU(d, sums + i * kFeatures + v * hn::MaxLanes(d)) : hn::Zero(d);
    }
  }
  const int64_t step_bytes = kLanes * panel.ahead_bytes / std::max<int64_t>(panel.units, 1) + 1;
  const std::byte* ahead = panel.ahead;
  const std::byte* ahead_end = panel.ahead + panel.ahead_bytes;
  for (int64_t unit = 0; unit < panel.units; unit += kLanes) {
    for (const std::byte* end = std::min(ahead_end, ahead + step_bytes); ahead < end; ahead += kLine) {
      __builtin_prefetch(ahead, 0, 2);
    }
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v) {
      FloatVec units[kLanes];
#pragma GCC unroll 16
      for (int64_t i = 0; i < kLanes; ++i) {
        const std::byte* row = panel.rows + (static_cast<int64_t>(v) * kLanes + i) * panel.stride_bytes;
        units[i] = LoadFloats(d, reinterpret_cast<const T*>(row) + unit);
      }
      Transpose(d, units);
#pragma GCC unroll 16
      for (int64_t k = 0; k < kLanes; ++k) {
#pragma GCC unroll 8
        for (size_t i = 0; i < kTileRows; ++i) {
          sum[i][v] = hn::MulAdd(hn::Set(d, x[static_cast<size_t>(k) * kTileRows + i]), units[k], sum[i][v]);
        }
      }
    }
    x += static_cast<size_t>(kLanes) * kTileRows;
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v) hn::StoreU(sum[i][v], d, sums + i * kFeatures + v * hn::MaxLanes(d));
  }
}

template <size_t kTileRows>
void MultiplyDirectly(const std::byte* slice, const DirectPanel& panel, bool accumulate, float* sums) {
  const auto* x = reinterpret_cast<const float*>(slice);
  Dispatch(panel.dtype,
           [&](auto zero) HWY_ATTR { MultiplyDirectlyBy<kTileRows, decltype(zero)>(x, panel, accumulate, sums); });
}

template <size_t... kIndices>
constexpr std::array<DirectFunction, kDirectRows + 1> DirectOf(std::index_sequence<kIndices...> /*rows less one*/) {
  return {nullptr, &MultiplyDirectly<kIndices + 1>...};
}
constexpr std::array<DirectFunction, kDirectRows + 1> kDirect = DirectOf(std::make_index_sequence<kDirectRows>());
#endif

double Spin(int64_t rounds) {
  const FloatTag d;
  constexpr size_t kSums = 12;  // more than a processor has in flight
  FloatVec sum[kSums];
#pragma GCC unroll 12
  for (size_t i = 0; i < kSums; ++i) sum[i] = hn::Set(d, static_cast<float>(i));
  auto factor = hn::Set(d, 0.5f);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (size_t i = 0; i < kSums; ++i) sum[i] = hn::MulAdd(sum[i], factor, factor);
  }
  for (size_t i = 1; i < kSums; ++i) sum[0] = hn::Add(sum[0], sum[i]);
  volatile float kept = hn::GetLane(sum[0]);
  (void)kept;
  return 2.0 * static_cast<double>(kSums * hn::MaxLanes(d)) * static_cast<double>(rounds);
}

Kernel MakeKernel() {
  Kernel kernel;
  kernel.name = hwy::TargetName(HWY_TARGET);
  kernel.arithmetic = DType::kF32;
  kernel.most_slice_rows = static_cast<int64_t>(kRows);
  kernel.panel_features = static_cast<int64_t>(kFeatures);
  kernel.pack_panel = &PackPanel;
  kernel.multiply = &MultiplyPanels;
  kernel.tiles = kTiles.data();
#if HWY_TARGET != HWY_SCALAR
  kernel.direct = kDirect.data();
  kernel.most_direct_rows = static_cast<int64_t>(kDirectRows);
  kernel.direct_units = kLanes;
#endif
  kernel.block_rows = kBlockRows;
  kernel.block_panels = kAnyNumber;
  kernel.block_bytes = kBlockBytes;
  kernel.spin = &Spin;
  return kernel;
}

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace runahead::cpu {
HWY_EXPORT(MakeKernel);

Kernel F32Kernel() { return HWY_DYNAMIC_DISPATCH(MakeKernel)(); }

}  // namespace runahead::cpu
#endif  // HWY_ONCE
