// Products of int8 and int4 on any processor.
#include <array>
#include <cmath>
#include <utility>

#include "ops/cpu/matmul/integer_panels.h"
#include "ops/cpu/matmul/panels.h"

namespace runahead::cpu {
namespace {

constexpr int kRows = 4;
constexpr int kFeatures = 16;

template <int kTileRows>
void MultiplyTile(const IntegerBlock& block, float* sums) {
  int32_t sum[kTileRows][kFeatures];
  for (int i = 0; i < kTileRows; ++i) {
    for (int32_t& one : sum[i]) one = block.offsets[i];
  }
  const auto* x = reinterpret_cast<const int8_t*>(block.x);
  const auto* codes = reinterpret_cast<const uint8_t*>(block.codes);
  for (int64_t k = 0; k < block.units; ++k) {
    for (int i = 0; i < kTileRows; ++i) {
      for (int f = 0; f < kFeatures; ++f) {
        int32_t four = 0;
        for (int j = 0; j < 4; ++j) four += codes[4 * f + j] * x[4 * i + j];
        sum[i][f] += four;
      }
    }
    x += 4 * kTileRows;
    codes += 4 * kFeatures;
  }
  for (int i = 0; i < kTileRows; ++i) {
    for (int f = 0; f < kFeatures; ++f) {
      float& to = sums[i * kFeatures + f];
      to = std::fma(static_cast<float>(sum[i][f]), block.scales[f] * block.row_scales[i], to);
    }
  }
}

double Spin(int64_t rounds) {
  volatile int32_t sum = 0;
  for (int64_t round = 0; round < rounds; ++round) sum = sum + static_cast<int32_t>(round % 3) * 2;
  return 2.0 * static_cast<double>(rounds);
}

template <size_t... kIndices>
constexpr std::array<IntegerFunction, kRows + 1> TilesOf(std::index_sequence<kIndices...> /*rows less one*/) {
  return {nullptr, &MultiplyTile<static_cast<int>(kIndices) + 1>...};
}
constexpr std::array<IntegerFunction, kRows + 1> kTiles = TilesOf(std::make_index_sequence<kRows>());

Kernel MakeKernel() {
  Kernel kernel;
  kernel.name = "INT8";
  kernel.most_slice_rows = kRows;
  kernel.panel_features = kFeatures;
  kernel.integers = {kTiles.data(), kTiles[1], nullptr, &ExpandNibbles, false};
  kernel.block_rows = kBlockRows;
  kernel.block_panels = kAnyNumber;
  kernel.block_bytes = kBlockBytes;
  kernel.spin = &Spin;
  return kernel;
}

}  // namespace

const Kernel* PlainIntegerKernel() {
  static const Kernel kernel = MakeKernel();
  return &kernel;
}

}  // namespace runahead::cpu
