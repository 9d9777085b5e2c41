// What a processor's kernel of matrix products provides, and how its operands lie in memory.
//
// A product is y = x W^T. Both operands are read in units of four bytes of the summed dimension: one f32, or two
// neighbouring bf16, or four int8. Rows of x are packed into slices [units, rows of the slice], weights into panels
// of a kernel's own layout. Every sum runs over the units in ascending order, in one accumulator, so that its bits
// depend on the kernel alone: never on the slice, the panel, the block or the thread that it falls into.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ops/cpu/scratch.h"
#include "ops/weight_format.h"
#include "tensor/tensor_view.h"

namespace runahead::cpu {

constexpr int64_t RoundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// One matrix of weights, borrowed.
struct Matrix {
  const std::byte* data = nullptr;  // panels of a kernel, or row-major [rows, depth] of `dtype` without gaps
  DType dtype = DType::kF32;        // dtype of row-major weights: the compute dtype
  int64_t rows = 0;                 // output features
  int64_t depth = 0;                // input features: the terms of a sum
  bool packed = false;
};

/// Packed activations: slices one after another, each of slice_rows rows but the last.
struct PackedRows {
  const std::byte* data = nullptr;
  int64_t rows = 0;
  int64_t slice_rows = 0;
  int64_t units = 0;
  bool padded = false;  // the last slice is as wide as the others
  // Of rows of integers, see QuantisedRows.
  const float* scales = nullptr;        // [blocks of depth, rows]
  const int32_t* offsets = nullptr;     // [blocks of depth, rows]
  const int16_t* group_sums = nullptr;  // [groups of depth], of one row alone

  [[nodiscard]] int64_t slices() const { return (rows + slice_rows - 1) / slice_rows; }
  /// Bytes from one slice to the next. The same units of slices that lie a large power of two apart would share a few
  /// sets of the second cache: a gap lays them side by side.
  [[nodiscard]] int64_t SliceBytes() const {
    constexpr int64_t kPower = int64_t{1} << 15;
    constexpr int64_t kGap = int64_t{1} << 13;
    const int64_t bytes = slice_rows * units * 4;
    return bytes % kPower == 0 ? bytes + kGap : bytes;
  }
  /// [units, Width(slice)]
  [[nodiscard]] const std::byte* Slice(int64_t slice) const { return data + slice * SliceBytes(); }
  [[nodiscard]] int64_t RowsOf(int64_t slice) const {
    return slice + 1 < slices() ? slice_rows : rows - slice * slice_rows;
  }
  [[nodiscard]] int64_t Width(int64_t slice) const { return padded ? slice_rows : RowsOf(slice); }
};

/// Where sums go: y[row - first_row][feature - first_feature] = sum + bias[feature], rounded to y's dtype, or with
/// `add` the sum of that and what is there.
struct Sink {
  TensorView y;                 // result, of the compute dtype or f32
  const float* bias = nullptr;  // [features of the matrix], or null
  bool add = false;
  int64_t first_row = 0;
  int64_t first_feature = 0;
};

/// Takes sums of rows [row, row + rows) and features [feature, feature + features) from sums[row][feature], rows
/// `stride` apart.
void Store(const Sink& sink, const float* sums, int64_t stride, int64_t row, int64_t rows, int64_t feature,
           int64_t features);

struct Kernel;

/// A part of a product for one worker: slices [slice_begin, slice_end) times panels [panel_begin, panel_end).
struct Block {
  const PackedRows* x = nullptr;
  const Matrix* weights = nullptr;
  int64_t slice_begin = 0;
  int64_t slice_end = 0;
  int64_t panel_begin = 0;
  int64_t panel_end = 0;
  const Sink* sink = nullptr;
  Scratch* scratch = nullptr;  // the worker's
};

/// sums [rows, panel] = or += slice^T panel, both [units, ...].
using TileFunction = void (*)(const std::byte* slice, const std::byte* panel, int64_t units, bool accumulate,
                              float* sums);

/// Row-major weights of a whole panel, of which `units` units are read.
struct DirectPanel {
  const std::byte* rows = nullptr;  // weights, from the first of these units on
  int64_t stride_bytes = 0;
  DType dtype = DType::kF32;
  int64_t units = 0;
  const std::byte* ahead = nullptr;  // what to ask for meanwhile: `ahead_bytes`, evenly
  int64_t ahead_bytes = 0;
};

/// sums [rows, panel] = or += slice^T panel, over the panel's units: a multiple of Kernel::direct_units.
using DirectFunction = void (*)(const std::byte* slice, const DirectPanel& panel, bool accumulate, float* sums);

/// A block of the depth of a product of integers: one slice times one panel.
struct IntegerBlock {
  const std::byte* x = nullptr;       // the slice's codes from the block on
  const std::byte* codes = nullptr;   // [units, panel features] of four bytes: codes of the weights plus 128
  int64_t units = 0;                  // a multiple of 16
  const int32_t* offsets = nullptr;   // [rows]
  const float* row_scales = nullptr;  // [rows]
  const float* scales = nullptr;      // [panel features]
};

/// sums [rows, panel] = fma(products as f32, row's scale * feature's scale, sums).
using IntegerFunction = void (*)(const IntegerBlock& block, float* sums);

/// A block of the depth of one row times a panel of int4, as they lie in memory (integer_panels.h).
struct NibbleBlock {
  const std::byte* x = nullptr;         // codes from the block on
  const int16_t* group_sums = nullptr;  // from the block on
  const std::byte* panel = nullptr;     // the block's scales and what follows
  int64_t units = 0;
  float row_scale = 0;
};
using NibbleFunction = void (*)(const NibbleBlock& block, float* sums);

/// What a kernel of integers provides.
struct IntegerSteps {
  const IntegerFunction* tiles = nullptr;  // [1 + most_slice_rows], by rows of the slice
  IntegerFunction alone = nullptr;         // the only row of a product
  NibbleFunction nibbles_alone = nullptr;  // the same by int4's panels as they are; null: they become codes first
  /// Codes of `units` units of an int4 panel, given what follows a block's scales.
  void (*expand)(const Kernel& kernel, const std::byte* groups, int64_t units, std::byte* codes) = nullptr;
  bool row_major = false;  // slices of a product of more than one row are [units / 16, slice rows, 16 units]
};

/// One way to multiply. Immutable; lives as long as the program.
struct Kernel {
  const char* name = nullptr;
  DType arithmetic = DType::kF32;  // dtype of packed operands, where the format is kStored
  WeightFormat format = WeightFormat::kStored;
  int64_t most_slice_rows = 0;
  bool padded_slices = false;  // slices of most_slice_rows, whatever the rows, unless there is one row alone
  int64_t panel_features = 0;
  int64_t unit_multiple = 1;  // units are padded with zeros to a multiple
  /// Writes panel `index` of a row-major matrix: PanelBytes.
  void (*pack_panel)(const Kernel& kernel, const Matrix& weights, int64_t index, std::byte* panel) = nullptr;
  void (*multiply)(const Kernel& kernel, const Block& block) = nullptr;
  const TileFunction* tiles = nullptr;     // [1 + most_slice_rows], by rows of the slice; or null
  const DirectFunction* direct = nullptr;  // [1 + most_direct_rows], by rows of the slice; or null
  int64_t most_direct_rows = 0;
  int64_t direct_units = 1;
  IntegerSteps integers;       // of other formats than kStored
  int64_t slices_at_once = 1;  // blocks take a multiple
  int64_t block_rows = 0;      // most rows of a large product's block
  int64_t block_panels = 0;    // most panels of a block
  size_t block_bytes = 0;      // most bytes of its panels together, unless one alone is larger
  /// Bytes of a block's rows that the second cache keeps while panels go by; 0: any. Deeper rows pass once for each
  /// block: it takes more panels and fewer rows then.
  size_t kept_bytes = 0;
  int64_t deep_rows = 0;
  int64_t deep_panels = 0;
  /// Computes from registers alone for `rounds` rounds. Returns floating-point operations.
  double (*spin)(int64_t rounds) = nullptr;

  [[nodiscard]] int64_t Units(int64_t depth) const {
    const auto element = format == WeightFormat::kStored ? static_cast<int64_t>(SizeOf(arithmetic)) : 1;
    return RoundUp((depth * element + 3) / 4, unit_multiple);
  }
  [[nodiscard]] int64_t Panels(int64_t features) const { return (features + panel_features - 1) / panel_features; }
  [[nodiscard]] size_t PanelBytes(int64_t depth) const {
    if (format != WeightFormat::kStored) {
      return static_cast<size_t>(panel_features) * QuantisedRowBytes(format, depth);
    }
    return static_cast<size_t>(Units(depth) * panel_features) * 4;
  }
  /// Rows of a large product's block, at most.
  [[nodiscard]] int64_t BlockRows(int64_t depth) const { return Deep(depth) ? deep_rows : block_rows; }
  /// Its panels.
  [[nodiscard]] int64_t BlockPanels(int64_t depth) const {
    const int64_t most = Deep(depth) ? deep_panels : block_panels;
    return std::clamp<int64_t>(static_cast<int64_t>(block_bytes / PanelBytes(depth)), 1, most);
  }
  [[nodiscard]] bool Deep(int64_t depth) const {
    return kept_bytes > 0 && static_cast<size_t>(Units(depth) * 4 * block_rows) > kept_bytes;
  }
};

/// The kernel that this processor multiplies fastest with, for activations of dtype `compute`.
const Kernel& KernelFor(DType compute, WeightFormat format = WeightFormat::kStored);
/// All kernels that this processor can run for activations of dtype `compute`, fastest first.
std::vector<Kernel> KernelsFor(DType compute);
/// The same for weights in int8 or int4.
std::vector<Kernel> IntegerKernelsFor(WeightFormat format);

// ---- The kernels, null where the processor lacks the instructions ----------------------------------------------

/// f32 products of any dtype, with the widest vectors that Highway finds.
Kernel F32Kernel();
/// AVX-512 BF16.
const Kernel* Bf16VectorKernel();
/// AMX tiles.
const Kernel* Bf16TileKernel();

// Integers, without `format`, `pack_panel` and `multiply`.

/// AMX tiles of int8.
const Kernel* Int8TileKernel();
/// AVX-512 VNNI.
const Kernel* VnniKernel();
/// AVX2.
const Kernel* Avx2IntegerKernel();
/// NEON's dot products.
const Kernel* NeonDotKernel();
/// Any processor.
const Kernel* PlainIntegerKernel();

}  // namespace runahead::cpu
