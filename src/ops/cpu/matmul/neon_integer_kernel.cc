// Products of int8 and int4 by NEON's dot products.
#include <hwy/base.h>

#include "ops/cpu/matmul/kernel.h"

#if HWY_ARCH_ARM_A64 && defined(__linux__)

#include <arm_neon.h>

#include <array>
#include <cstring>
#include <utility>

#include "ops/cpu/matmul/integer_panels.h"
#include "ops/cpu/matmul/panels.h"
#include "ops/cpu/processor.h"

namespace runahead::cpu {
namespace {

constexpr int kRows = 5;
constexpr int kVectors = 4;
constexpr int kFeatures = 4 * kVectors;

HWY_PUSH_ATTRIBUTES("arch=armv8.2-a+dotprod")

inline const uint8_t* Bytes(const std::byte* from) { return reinterpret_cast<const uint8_t*>(from); }

inline int8x16_t Four(const std::byte* codes) {
  int32_t four = 0;
  std::memcpy(&four, codes, sizeof four);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

/// sums += integers * row's scale * features' scales.
inline void AddScaled(int32x4_t integers, const float* scales, float row_scale, float* sums) {
  const float32x4_t both = vmulq_n_f32(vld1q_f32(scales), row_scale);
  vst1q_f32(sums, vfmaq_f32(vld1q_f32(sums), vcvtq_f32_s32(integers), both));
}

/// Codes lose their 128 again, since these products are of signed bytes.
template <int kTileRows>
void MultiplyTile(const IntegerBlock& block, float* sums) {
  int32x4_t sum[kTileRows][kVectors];
#pragma GCC unroll 5
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[i][v] = vdupq_n_s32(0);
  }
  const std::byte* x = block.x;
  const std::byte* codes = block.codes;
  for (int64_t k = 0; k < block.units; ++k) {
    int8x16_t weights[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      weights[v] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(Bytes(codes + 16 * v)), vdupq_n_u8(128)));
    }
#pragma GCC unroll 5
    for (int i = 0; i < kTileRows; ++i) {
      const int8x16_t four = Four(x + 4 * i);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[i][v] = vdotq_s32(sum[i][v], weights[v], four);
    }
    x += 4 * kTileRows;
    codes += 4 * kFeatures;
  }
#pragma GCC unroll 5
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      AddScaled(sum[i][v], block.scales + 4 * v, block.row_scales[i], sums + i * kFeatures + 4 * v);
    }
  }
}

/// Of [4 features, 2 groups] bytes those of one group, as 32 bits.
inline int32x4_t ZerosOf(const std::byte* from, int group) {
  const int16x8_t all = vmovl_s8(vld1_s8(reinterpret_cast<const int8_t*>(from)));
  const int32x4_t both = vreinterpretq_s32_s16(all);
  return group == 0 ? vshrq_n_s32(vshlq_n_s32(both, 16), 16) : vshrq_n_s32(both, 16);
}

inline uint32x4_t StepsOf(const std::byte* from) {
  uint32_t four = 0;
  std::memcpy(&four, from, sizeof four);
  const uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(four));
  return vmovl_u16(vget_low_u16(vmovl_u8(bytes)));
}

void MultiplyNibbles(const NibbleBlock& block, float* sums) {
  const uint8x16_t low = vdupq_n_u8(15);
  int32x4_t total[kVectors];
  for (int32x4_t& sum : total) sum = vdupq_n_s32(0);
  const std::byte* pair = block.panel + 4 * kFeatures;
  const std::byte* x = block.x;
  const int16_t* group_sums = block.group_sums;
  for (int64_t unit = 0; unit < block.units; unit += 2 * kGroupUnits) {
    for (int g = 0; g < 2; ++g) {
      const std::byte* rows = pair + 4 * kFeatures + g * kGroupDepth / 2 * kFeatures;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        int32x4_t sum = vdupq_n_s32(0);
#pragma GCC unroll 4
        for (int k = 0; k < kGroupUnits / 2; ++k) {
          const uint8x16_t both = vld1q_u8(Bytes(rows + 4 * kFeatures * k + 16 * v));
          sum = vdotq_s32(sum, vreinterpretq_s8_u8(vandq_u8(both, low)), Four(x + 4 * k));
          sum = vdotq_s32(sum, vreinterpretq_s8_u8(vshrq_n_u8(both, 4)), Four(x + 4 * (k + kGroupUnits / 2)));
        }
        const int32x4_t step = vreinterpretq_s32_u32(StepsOf(pair + (2 + g) * kFeatures + 4 * v));
        total[v] = vmlaq_s32(total[v], sum, step);
        total[v] = vmlaq_n_s32(total[v], ZerosOf(pair + 8 * v, g), group_sums[g]);
      }
      x += kGroupDepth;
    }
    group_sums += 2;
    pair += kPairBytes * kFeatures;
  }
  for (int v = 0; v < kVectors; ++v) {
    AddScaled(total[v], reinterpret_cast<const float*>(block.panel) + 4 * v, block.row_scale, sums + 4 * v);
  }
}

/// Each of four bytes four times.
inline uint8x16_t Spread(uint32x4_t four) { return vreinterpretq_u8_u32(vmulq_n_u32(four, 0x01010101U)); }

void Expand(const Kernel& /*kernel*/, const std::byte* pair, int64_t units, std::byte* codes) {
  for (int64_t unit = 0; unit < units; unit += 2 * kGroupUnits) {
    for (int g = 0; g < 2; ++g) {
      const std::byte* rows = pair + 4 * kFeatures + g * kGroupDepth / 2 * kFeatures;
      auto* to = reinterpret_cast<uint8_t*>(codes + g * kGroupDepth * kFeatures);
      for (int v = 0; v < kVectors; ++v) {
        const uint8x16_t step = Spread(StepsOf(pair + (2 + g) * kFeatures + 4 * v));
        const int32x4_t shifted = vaddq_s32(ZerosOf(pair + 8 * v, g), vdupq_n_s32(128));
        const uint8x16_t zero = Spread(vreinterpretq_u32_s32(shifted));
        for (int64_t k = 0; k < kGroupUnits / 2; ++k) {
          const uint8x16_t both = vld1q_u8(Bytes(rows + 4 * kFeatures * k + 16 * v));
          vst1q_u8(to + 4 * kFeatures * k + 16 * v, vmlaq_u8(zero, vandq_u8(both, vdupq_n_u8(15)), step));
          vst1q_u8(to + 4 * kFeatures * (k + kGroupUnits / 2) + 16 * v, vmlaq_u8(zero, vshrq_n_u8(both, 4), step));
        }
      }
    }
    codes += 2 * kGroupDepth * kFeatures;
    pair += kPairBytes * kFeatures;
  }
}

double Spin(int64_t rounds) {
  constexpr int kSums = 12;  // more than a processor has in flight
  int32x4_t sum[kSums];
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) sum[i] = vdupq_n_s32(i);
  const int8x16_t factor = vdupq_n_s8(1);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sum[i] = vdotq_s32(sum[i], factor, factor);
  }
  for (int i = 1; i < kSums; ++i) sum[0] = vaddq_s32(sum[0], sum[i]);
  volatile int kept = vgetq_lane_s32(sum[0], 0);
  (void)kept;
  return 8.0 * 4 * kSums * static_cast<double>(rounds);
}

HWY_POP_ATTRIBUTES

template <size_t... kIndices>
constexpr std::array<IntegerFunction, kRows + 1> TilesOf(std::index_sequence<kIndices...> /*rows less one*/) {
  return {nullptr, &MultiplyTile<static_cast<int>(kIndices) + 1>...};
}
constexpr std::array<IntegerFunction, kRows + 1> kTiles = TilesOf(std::make_index_sequence<kRows>());

Kernel MakeKernel() {
  Kernel kernel;
  kernel.name = "NEON_DOTPROD";
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

const Kernel* NeonDotKernel() {
  static const Kernel kernel = MakeKernel();
  return HasNeonDots() ? &kernel : nullptr;
}

}  // namespace runahead::cpu

#else

namespace runahead::cpu {

const Kernel* NeonDotKernel() { return nullptr; }

}  // namespace runahead::cpu

#endif
