// Packs rows into the layout [units, width] that kernels of matrix products read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace runahead::cpu {

/// Rows in memory. Units of bf16 arithmetic are pairs, the last of an odd depth padded with zero.
struct PackSource {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t depth = 0;
  int64_t stride = 0;  // elements from row to row
};

/// to[unit - begin][i] = unit `unit` of row i, converted to `arithmetic` (f32, or bf16 from bf16), for units [begin,
/// end) and i < width. Units behind the depth are zeros; rows behind the last repeat it. Nothing else is read or
/// written.
void Pack(const PackSource& from, DType arithmetic, int64_t begin, int64_t end, int64_t width, std::byte* to);

}  // namespace runahead::cpu
