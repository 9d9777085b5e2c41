// Tiles of sums on their way to memory.
#pragma once

#include <cstdint>

#include "ops/cpu/matmul/kernel.h"

namespace runahead::cpu {

constexpr int64_t kTileSide = 16;  // features, or rows, of a tile

/// Sums of 32 features and up to 16 rows of x: two tiles [16 features, 16 rows], or [16 features, 1 row].
struct TileSums {
  const float* lower = nullptr;
  const float* upper = nullptr;
  int64_t width = kTileSide;  // rows of a tile, 16 or 1
};

/// Takes rows [row, row + rows) and features [feature, feature + features) to the sink, with the bits that Store
/// gives them.
void StoreTiles(const Sink& sink, const TileSums& sums, int64_t row, int64_t rows, int64_t feature, int64_t features);

}  // namespace runahead::cpu
