// Products by kernels that work on registers: tiles of a slice's rows by a panel's features.
#pragma once

#include "ops/cpu/matmul/kernel.h"

namespace runahead::cpu {

/// No limit.
constexpr int64_t kAnyNumber = int64_t{1} << 40;
/// Panels that a core's own cache holds together, beside what they meet.
constexpr size_t kBlockBytes = size_t{1} << 18;
/// Most rows of a block: enough to pack weights for; their slices, which go by once for the panels, come from a
/// cache.
constexpr int64_t kBlockRows = 512;
/// Most floats of a tile's sums.
constexpr int64_t kMostTileFloats = 14 * 32;

/// Kernel::pack_panel: [units, panel features].
void PackPanel(const Kernel& kernel, const Matrix& weights, int64_t index, std::byte* panel);
/// Kernel::multiply by Kernel::tiles. Row-major weights are packed on the way: whole panels for many rows, pieces
/// that the first cache holds for a single slice.
void MultiplyPanels(const Kernel& kernel, const Block& block);

}  // namespace runahead::cpu
