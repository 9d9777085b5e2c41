// Products of int8 by AMX tiles, for more than one row.
//
// Slices are the left operand, [steps of 16 units, 32 rows, 64 bytes], panels the right one, as every kernel has
// them: 16 units of 16 features. Four tiles of sums [16 rows, 16 features] are computed at a time. One row alone is
// for vectors.
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
#include <utility>

#include "ops/cpu/matmul/integer_panels.h"
#include "ops/cpu/processor.h"
#include "ops/cpu/tiles.h"

namespace runahead::cpu {
namespace {

constexpr int64_t kSide = 16;
constexpr int64_t kRows = 2 * kSide;
constexpr int64_t kFeatures = 2 * kSide;
constexpr int64_t kLine = 64;  // bytes of a row of a tile

/// All tiles are [16, 64 bytes]. 0 to 3: sums [half of the rows][half of the features]; 4 and 5: x; 6 and 7: weights.
TileShapes Shapes() {
  TileShapes shapes;
  for (int tile = 0; tile < 8; ++tile) {
    shapes.rows[tile] = kSide;
    shapes.column_bytes[tile] = kLine;
  }
  return shapes;
}

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")

/// `halves` of 16 rows, of which the first `rows` rows are wanted.
template <int kHalves>
void MultiplyTile(const IntegerBlock& block, int64_t rows, float* sums) {
  ZeroTile<0>();
  ZeroTile<1>();
  if constexpr (kHalves == 2) {
    ZeroTile<2>();
    ZeroTile<3>();
  }
  const std::byte* x = block.x;
  const std::byte* codes = block.codes;
  for (int64_t unit = 0; unit < block.units; unit += kSide) {
    LoadTile<4>(x, kLine);
    LoadTile<6>(codes, 4 * kFeatures);
    MultiplyByteTiles<0, 4, 6>();
    LoadTile<7>(codes + kLine, 4 * kFeatures);
    MultiplyByteTiles<1, 4, 7>();
    if constexpr (kHalves == 2) {
      LoadTile<5>(x + kSide * kLine, kLine);
      MultiplyByteTiles<2, 5, 6>();
      MultiplyByteTiles<3, 5, 7>();
    }
    x += kRows * kLine;
    codes += kSide * 4 * kFeatures;
  }
  alignas(64) int32_t integers[kRows * kFeatures];
  StoreTile<0>(integers, 4 * kFeatures);
  StoreTile<1>(integers + kSide, 4 * kFeatures);
  if constexpr (kHalves == 2) {
    StoreTile<2>(integers + kSide * kFeatures, 4 * kFeatures);
    StoreTile<3>(integers + kSide * kFeatures + kSide, 4 * kFeatures);
  }
  const __m512 scales[2] = {_mm512_loadu_ps(block.scales), _mm512_loadu_ps(block.scales + kSide)};
  for (int64_t i = 0; i < rows; ++i) {
    const __m512i offset = _mm512_set1_epi32(block.offsets[i]);
    const __m512 row_scale = _mm512_set1_ps(block.row_scales[i]);
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      float* to = sums + i * kFeatures + kSide * v;
      const __m512i sum = _mm512_add_epi32(_mm512_load_si512(integers + i * kFeatures + kSide * v), offset);
      _mm512_storeu_ps(
          to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scales[v], row_scale), _mm512_loadu_ps(to)));
    }
  }
}

HWY_POP_ATTRIBUTES

template <int kCount>
void MultiplyRows(const IntegerBlock& block, float* sums) {
  MultiplyTile<(kCount + kSide - 1) / kSide>(block, kCount, sums);
}

template <size_t... kIndices>
constexpr std::array<IntegerFunction, kRows + 1> TilesOf(std::index_sequence<kIndices...> /*rows less one*/) {
  return {nullptr, &MultiplyRows<static_cast<int>(kIndices) + 1>...};
}
constexpr std::array<IntegerFunction, kRows + 1> kTiles = TilesOf(std::make_index_sequence<kRows>());

/// Gives the thread its tiles for the time of a block.
void MultiplyBlock(const Kernel& kernel, const Block& block) {
  if (block.x->rows == 1) return MultiplyIntegers(kernel, block);
  const TileScope scope(Shapes());
  MultiplyIntegers(kernel, block);
}

double Spin(int64_t rounds) {
  const TileScope scope(Shapes());
  for (int64_t round = 0; round < rounds; ++round) {
    MultiplyByteTiles<0, 4, 6>();
    MultiplyByteTiles<1, 4, 6>();
    MultiplyByteTiles<2, 4, 6>();
    MultiplyByteTiles<3, 4, 6>();
  }
  return 4 * 2.0 * kSide * kSide * kLine * static_cast<double>(rounds);
}

Kernel MakeKernel(const Kernel& vectors) {
  Kernel kernel;
  kernel.name = "AMX_INT8";
  kernel.most_slice_rows = kRows;
  kernel.padded_slices = true;
  kernel.panel_features = kFeatures;
  kernel.multiply = &MultiplyBlock;
  kernel.integers = {kTiles.data(), vectors.integers.alone, vectors.integers.nibbles_alone, vectors.integers.expand,
                     true};
  kernel.block_rows = 512;
  kernel.block_panels = int64_t{1} << 40;
  kernel.block_bytes = size_t{1} << 19;  // a quarter of these processors' second cache
  kernel.spin = &Spin;
  return kernel;
}

}  // namespace

const Kernel* Int8TileKernel() {
  if (!HasInt8Tiles() || VnniKernel() == nullptr) return nullptr;
  static const Kernel kernel = MakeKernel(*VnniKernel());
  return &kernel;
}

}  // namespace runahead::cpu

#else

namespace runahead::cpu {

const Kernel* Int8TileKernel() { return nullptr; }

}  // namespace runahead::cpu

#endif
