#include "ops/cpu/matmul/multiplier.h"

#include <algorithm>
#include <cstring>

#include "ops/checks.h"
#include "ops/cpu/matmul/pack.h"
#include "ops/cpu/quantise.h"
#include "ops/cpu/rows.h"

namespace runahead::cpu {
namespace {

/// How a product is cut: a grid of blocks over rows and features.
struct Grid {
  int64_t block_slices = 1;
  int64_t row_blocks = 1;
  int64_t block_panels = 1;

  /// Enough blocks that no worker waits long for another's last one, each large enough to be worth starting.
  Grid(const Kernel& kernel, const PackedRows& x, int64_t depth, int64_t panels, int64_t most_rows, int workers) {
    constexpr int64_t kBlocksOfWorker = 4;
    constexpr int64_t kFewRowsPanels = 64;               // many weights at a time, which come from memory in order
    constexpr int64_t kWorthAThread = int64_t{1} << 17;  // products of two numbers
    block_slices = std::clamp<int64_t>(most_rows / x.slice_rows, 1, x.slices());
    row_blocks = (x.slices() + block_slices - 1) / block_slices;
    block_slices = RoundUp((x.slices() + row_blocks - 1) / row_blocks, kernel.slices_at_once);
    row_blocks = (x.slices() + block_slices - 1) / block_slices;
    const int64_t enough = workers == 1 ? 1 : kBlocksOfWorker * workers;
    const int64_t share = std::max<int64_t>(1, panels * row_blocks / enough);
    const int64_t worth = 1 + kWorthAThread / (kernel.panel_features * depth * std::min(x.rows, most_rows));
    const int64_t most = x.slices() == 1 ? kFewRowsPanels : kernel.BlockPanels(depth);
    block_panels = std::max(std::min(most, share), worth);
  }
};

const CpuLinear& Checked(TensorView x, const Linear& any, int first, int count, TensorView y) {
  const auto& linear = static_cast<const CpuLinear&>(any);
  CheckMatmul(x, linear, linear.compute(), first, count, y);
  return linear;
}

/// Codes of `rows` rows of units one after another, as the kernel's slices have them.
void PackCodes(const Kernel& kernel, const PackedRows& packed, const std::byte* codes, int64_t rows, std::byte* to) {
  if (!kernel.integers.row_major) {
    // Units are moved as if they were f32.
    return Pack({codes, DType::kF32, rows, packed.units, packed.units}, DType::kF32, 0, packed.units, rows, to);
  }
  constexpr int64_t kLine = 64;
  for (int64_t line = 0; line < packed.units * 4 / kLine; ++line) {
    for (int64_t i = 0; i < rows; ++i) {
      std::memcpy(to + (line * packed.slice_rows + i) * kLine, codes + i * packed.units * 4 + line * kLine, kLine);
    }
  }
}

}  // namespace

PackedRows Multiplier::PackX(TensorView x, const Kernel& kernel, int64_t depth) {
  PackedRows packed;
  packed.rows = x.rows();
  packed.units = kernel.Units(depth);
  packed.padded = kernel.padded_slices && x.rows() > 1;
  const int64_t slices = (x.rows() + kernel.most_slice_rows - 1) / kernel.most_slice_rows;
  packed.slice_rows = packed.padded ? kernel.most_slice_rows : (x.rows() + slices - 1) / slices;
  auto* to = packed_x_.Get<std::byte>(static_cast<size_t>(packed.slices() * packed.SliceBytes()));
  packed.data = to;
  if (kernel.format != WeightFormat::kStored) {
    QuantiseX(x, kernel, packed, to);
    return packed;
  }
  constexpr int64_t kWorthAThread = 16384;  // elements
  const int64_t grain = 1 + kWorthAThread / (packed.slice_rows * depth);
  team_.RunRanges(packed.slices(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t slice = begin; slice < end; ++slice) {
      const int64_t row = slice * packed.slice_rows;
      const TensorView rows = x.Rows(row, row + packed.RowsOf(slice));
      Pack({static_cast<const std::byte*>(rows.data()), x.dtype(), rows.rows(), depth, x.row_stride()},
           kernel.arithmetic, 0, packed.units, packed.Width(slice), to + slice * packed.SliceBytes());
    }
  });
  return packed;
}

void Multiplier::QuantiseX(TensorView x, const Kernel& kernel, PackedRows& packed, std::byte* to) {
  const int64_t padded = packed.units * 4;
  const int64_t blocks = (padded + kBlockDepth - 1) / kBlockDepth;
  const int64_t groups = padded / kGroupDepth;
  const int64_t scales = blocks * packed.rows;
  auto* memory = row_scales_.Get<std::byte>(static_cast<size_t>(scales * 8 + groups * 2));
  auto* first_scale = reinterpret_cast<float*>(memory);
  auto* first_offset = reinterpret_cast<int32_t*>(memory + scales * 4);
  auto* group_sums = packed.rows == 1 ? reinterpret_cast<int16_t*>(memory + scales * 8) : nullptr;
  packed.scales = first_scale;
  packed.offsets = first_offset;
  packed.group_sums = group_sums;
  team_.Run(packed.slices(), [&](int64_t slice, int worker) {
    const int64_t row = slice * packed.slice_rows;
    const int64_t rows = packed.RowsOf(slice);
    std::byte* own = to + slice * packed.SliceBytes();
    auto* codes = reinterpret_cast<int8_t*>(
        packed.rows == 1
            ? own
            : scratch_[static_cast<size_t>(worker)].kernel.Get<std::byte>(static_cast<size_t>(rows * padded)));
    QuantiseActivations(x.Rows(row, row + rows),
                        {codes, first_scale + row, first_offset + row, group_sums, packed.rows, padded});
    if (packed.rows > 1) PackCodes(kernel, packed, reinterpret_cast<const std::byte*>(codes), rows, own);
  });
}

std::vector<Multiplier::Target> Multiplier::TargetsOf(const CpuLinear& linear, int first, int count, TensorView y,
                                                      bool add) const {
  std::vector<Target> targets;
  int64_t column = 0;
  for (size_t i = linear.MatrixBegin(first); i < linear.MatrixBegin(first + count); ++i) {
    const Matrix& matrix = linear.matrix(i);
    targets.push_back({&matrix, {y.Columns(column, column + matrix.rows), linear.bias(i), add, 0, 0}});
    column += matrix.rows;
  }
  return targets;
}

void Multiplier::Multiply(TensorView x, const Linear& any, int first, int count, TensorView y) {
  const CpuLinear& linear = Checked(x, any, first, count, y);
  if (x.rows() > 0) Run(x, linear, TargetsOf(linear, first, count, y, false));
}

void Multiplier::MultiplyAdd(TensorView x, const Linear& any, TensorView sum) {
  const CpuLinear& linear = Checked(x, any, 0, any.parts(), sum);
  CHECK(sum.dtype() == linear.compute());
  if (x.rows() > 0) Run(x, linear, TargetsOf(linear, 0, linear.parts(), sum, true));
}

void Multiplier::MultiplyActivate(TensorView x, const Linear& any, Activation activation, TensorView product,
                                  TensorView out) {
  const CpuLinear& linear = Checked(x, any, 0, any.parts(), product);
  CHECK(product.dtype() == linear.compute() && out.dtype() == linear.compute());
  if (x.rows() == 0) return;
  const bool gated = product.row_elements() != out.row_elements();
  if (gated) {
    CheckGatedActivation(product, out);
  } else {
    CheckActivate(product, out);
  }
  const bool by_blocks =
      linear.MatrixBegin(linear.parts()) == (gated ? 2u : 1u) && linear.matrix(0).rows == out.row_elements();
  if (by_blocks) return RunActivated(x, linear, activation, out);
  Run(x, linear, TargetsOf(linear, 0, linear.parts(), product, false));
  if (gated) return GatedActivation(team_, activation, product, out);
  Activate(team_, activation, product, out);
}

void Multiplier::Run(TensorView x, const CpuLinear& linear, std::span<const Target> targets) {
  const Kernel& kernel = linear.kernel();
  const int64_t depth = linear.in_features();
  const PackedRows packed = PackX(x, kernel, depth);
  int64_t panels = 0;
  for (const Target& target : targets) panels += kernel.Panels(target.matrix->rows);
  const Grid grid(kernel, packed, depth, panels, kernel.BlockRows(depth), team_.threads());
  const auto blocks_of = [&](const Target& target) {
    return (kernel.Panels(target.matrix->rows) + grid.block_panels - 1) / grid.block_panels;
  };
  int64_t columns = 0;  // blocks side by side
  for (const Target& target : targets) columns += blocks_of(target);
  team_.Run(columns * grid.row_blocks, [&](int64_t index, int worker) {
    int64_t column = index % columns;
    const Target* target = targets.data();
    for (; column >= blocks_of(*target); ++target) column -= blocks_of(*target);
    const int64_t slice = index / columns * grid.block_slices;
    const int64_t panel = column * grid.block_panels;
    kernel.multiply(kernel, {&packed, target->matrix, slice, std::min(slice + grid.block_slices, packed.slices()),
                             panel, std::min(panel + grid.block_panels, kernel.Panels(target->matrix->rows)),
                             &target->sink, &scratch_[static_cast<size_t>(worker)].kernel});
  });
}

void Multiplier::RunActivated(TensorView x, const CpuLinear& linear, Activation activation, TensorView out) {
  constexpr int64_t kRows = 512;  // rows whose products of a block the second cache holds until they are activated
  const Kernel& kernel = linear.kernel();
  const PackedRows packed = PackX(x, kernel, linear.in_features());
  const auto matrices = static_cast<int64_t>(linear.MatrixBegin(linear.parts()));
  const int64_t features = out.row_elements();
  const int64_t panels = kernel.Panels(features);
  const int64_t depth = linear.in_features();
  const Grid grid(kernel, packed, depth, panels, std::min(kRows, kernel.BlockRows(depth)), team_.threads());
  const int64_t columns = (panels + grid.block_panels - 1) / grid.block_panels;
  const Team one(1);
  team_.Run(columns * grid.row_blocks, [&](int64_t index, int worker) {
    WorkerScratch& scratch = scratch_[static_cast<size_t>(worker)];
    const int64_t slice = index / columns * grid.block_slices;
    const int64_t slice_end = std::min(slice + grid.block_slices, packed.slices());
    const int64_t panel = index % columns * grid.block_panels;
    const int64_t panel_end = std::min(panel + grid.block_panels, panels);
    const int64_t row = slice * packed.slice_rows;
    const int64_t rows = std::min(slice_end * packed.slice_rows, packed.rows) - row;
    const int64_t feature = panel * kernel.panel_features;
    const int64_t n = std::min(panel_end * kernel.panel_features, features) - feature;
    auto* memory = scratch.activated.Get<std::byte>(static_cast<size_t>(rows * matrices * n) * SizeOf(out.dtype()));
    const TensorView product(memory, out.dtype(), {rows, matrices * n});
    for (int64_t i = 0; i < matrices; ++i) {
      const auto matrix = static_cast<size_t>(i);
      const Sink sink{product.Columns(i * n, (i + 1) * n), linear.bias(matrix), false, row, feature};
      kernel.multiply(kernel,
                      {&packed, &linear.matrix(matrix), slice, slice_end, panel, panel_end, &sink, &scratch.kernel});
    }
    const TensorView target = out.Rows(row, row + rows).Columns(feature, feature + n);
    if (matrices == 2) return GatedActivation(one, activation, product, target);
    Activate(one, activation, product, target);
  });
}

}  // namespace runahead::cpu
