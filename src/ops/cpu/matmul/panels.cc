#include "ops/cpu/matmul/panels.h"

#include <algorithm>

#include "ops/cpu/matmul/pack.h"

namespace runahead::cpu {
namespace {

/// Rows of panel `index` of a row-major matrix.
PackSource RowsOfPanel(const Kernel& kernel, const Matrix& weights, int64_t index) {
  const int64_t first = index * kernel.panel_features;
  return {weights.data + first * weights.depth * static_cast<int64_t>(SizeOf(weights.dtype)), weights.dtype,
          std::min(kernel.panel_features, weights.rows - first), weights.depth, weights.depth};
}

/// One product: what its tiles share.
struct Tiles {
  const Kernel& kernel;
  const Block& block;

  [[nodiscard]] TileFunction FunctionOf(int64_t slice) const {
    return kernel.tiles[static_cast<size_t>(block.x->RowsOf(slice))];
  }
  void StoreSums(const float* sums, int64_t slice, int64_t panel) const {
    const int64_t feature = panel * kernel.panel_features;
    Store(*block.sink, sums, kernel.panel_features, slice * block.x->slice_rows, block.x->RowsOf(slice), feature,
          std::min(kernel.panel_features, block.weights->rows - feature));
  }
  /// All slices times packed panels [begin, end).
  void Multiply(const std::byte* panels, int64_t begin, int64_t end) const {
    alignas(64) float sums[kMostTileFloats];
    const int64_t units = block.x->units;
    const auto panel_bytes = static_cast<int64_t>(kernel.PanelBytes(block.weights->depth));
    for (int64_t slice = block.slice_begin; slice < block.slice_end; ++slice) {
      const TileFunction tile = FunctionOf(slice);
      for (int64_t panel = begin; panel < end; ++panel) {
        tile(block.x->Slice(slice), panels + (panel - begin) * panel_bytes, units, false, sums);
        StoreSums(sums, slice, panel);
      }
    }
  }
};

/// One slice times one panel of row-major weights.
struct SliceTimesPanel {
  const Tiles& tiles;
  const std::byte* slice;
  int64_t slice_rows;
  int64_t panel;
  PackSource rows;
  float* sums;

  [[nodiscard]] const std::byte* SliceAt(int64_t unit) const { return slice + unit * slice_rows * 4; }

  /// Units [begin, end), packed by pieces that the first cache holds.
  void MultiplyPieces(int64_t begin, int64_t end) const {
    constexpr int64_t kPieceUnits = 64;
    const Kernel& kernel = tiles.kernel;
    auto* piece = tiles.block.scratch->Get<std::byte>(static_cast<size_t>(kPieceUnits * kernel.panel_features * 4));
    for (; begin < end; begin += kPieceUnits) {
      const int64_t n = std::min(kPieceUnits, end - begin);
      Pack(rows, kernel.arithmetic, begin, begin + n, kernel.panel_features, piece);
      kernel.tiles[static_cast<size_t>(slice_rows)](SliceAt(begin), piece, n, begin > 0, sums);
    }
  }

  /// As many units from `begin` on as the kernel takes from where they are, while the next panel's bytes are on their
  /// way. Returns the first unit that is left.
  [[nodiscard]] int64_t MultiplyDirectly(int64_t begin, int64_t end) const {
    const Kernel& kernel = tiles.kernel;
    const Matrix& weights = *tiles.block.weights;
    const int64_t units = (end - begin) / kernel.direct_units * kernel.direct_units;
    if (units <= 0) return begin;
    const int64_t row_bytes = weights.depth * static_cast<int64_t>(SizeOf(weights.dtype));
    const int64_t panel_bytes = kernel.panel_features * row_bytes;
    const int64_t left = weights.rows * row_bytes - (panel + 1) * panel_bytes;
    const auto unit_bytes =
        4 / static_cast<int64_t>(SizeOf(kernel.arithmetic)) * static_cast<int64_t>(SizeOf(rows.dtype));
    const DirectPanel direct{rows.data + begin * unit_bytes, row_bytes, rows.dtype, units, rows.data + panel_bytes,
                             std::min(panel_bytes, left)};
    kernel.direct[static_cast<size_t>(slice_rows)](SliceAt(begin), direct, begin > 0, sums);
    return begin + units;
  }
};

/// Units before the first that begins a line of a cache, where the rows' lines begin alike; else none.
int64_t UnitsBeforeLine(const PackSource& rows, DType arithmetic) {
  constexpr int64_t kLine = 64;
  const auto unit_bytes = 4 / static_cast<int64_t>(SizeOf(arithmetic)) * static_cast<int64_t>(SizeOf(rows.dtype));
  const auto address = static_cast<int64_t>(reinterpret_cast<uintptr_t>(rows.data));
  if (rows.stride * static_cast<int64_t>(SizeOf(rows.dtype)) % kLine != 0 || address % unit_bytes != 0) return 0;
  return (RoundUp(address, kLine) - address) / unit_bytes;
}

void MultiplyOneSlice(const Tiles& tiles) {
  const Block& block = tiles.block;
  const Kernel& kernel = tiles.kernel;
  alignas(64) float sums[kMostTileFloats];
  const int64_t slice_rows = block.x->RowsOf(block.slice_begin);
  const int64_t units = block.x->units;
  const int64_t whole = block.weights->depth * static_cast<int64_t>(SizeOf(kernel.arithmetic)) / 4;
  for (int64_t panel = block.panel_begin; panel < block.panel_end; ++panel) {
    const PackSource rows = RowsOfPanel(kernel, *block.weights, panel);
    const SliceTimesPanel product{tiles, block.x->Slice(block.slice_begin), slice_rows, panel, rows, sums};
    int64_t done = 0;
    if (slice_rows <= kernel.most_direct_rows && rows.rows == kernel.panel_features) {
      const int64_t head = std::min(whole, UnitsBeforeLine(rows, kernel.arithmetic));
      product.MultiplyPieces(0, head);
      done = product.MultiplyDirectly(head, whole);
    }
    product.MultiplyPieces(done, units);
    tiles.StoreSums(sums, block.slice_begin, panel);
  }
}

}  // namespace

void PackPanel(const Kernel& kernel, const Matrix& weights, int64_t index, std::byte* panel) {
  Pack(RowsOfPanel(kernel, weights, index), kernel.arithmetic, 0, kernel.Units(weights.depth), kernel.panel_features,
       panel);
}

void MultiplyPanels(const Kernel& kernel, const Block& block) {
  const Tiles tiles{kernel, block};
  const Matrix& weights = *block.weights;
  const size_t panel_bytes = kernel.PanelBytes(weights.depth);
  if (weights.packed) {
    const int64_t group = kernel.BlockPanels(weights.depth);
    for (int64_t panel = block.panel_begin; panel < block.panel_end; panel += group) {
      tiles.Multiply(weights.data + static_cast<size_t>(panel) * panel_bytes, panel,
                     std::min(panel + group, block.panel_end));
    }
    return;
  }
  if (block.slice_end - block.slice_begin == 1) return MultiplyOneSlice(tiles);
  const int64_t group = std::min(kernel.BlockPanels(weights.depth), block.panel_end - block.panel_begin);
  auto* panels = block.scratch->Get<std::byte>(static_cast<size_t>(group) * panel_bytes);
  for (int64_t begin = block.panel_begin; begin < block.panel_end; begin += group) {
    const int64_t end = std::min(begin + group, block.panel_end);
    for (int64_t panel = begin; panel < end; ++panel) {
      PackPanel(kernel, weights, panel, panels + static_cast<size_t>(panel - begin) * panel_bytes);
    }
    tiles.Multiply(panels, begin, end);
  }
}

}  // namespace runahead::cpu
