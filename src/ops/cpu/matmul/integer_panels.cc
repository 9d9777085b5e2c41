#include "ops/cpu/matmul/integer_panels.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "ops/cpu/convert.h"
#include "ops/cpu/quantise.h"
#include "ops/cpu/team.h"
#include "runahead/error.h"
#include "tensor/cpu_device.h"

namespace runahead::cpu {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);

/// Units of block `block` of a panel.
int64_t UnitsOf(int64_t units, int64_t block) { return std::min(kBlockUnits, units - block * kBlockUnits); }
int64_t BlocksOf(int64_t units) { return (units + kBlockUnits - 1) / kBlockUnits; }

/// Bytes of a whole block of a panel, scales and all; only the last one is shorter.
int64_t BlockBytes(const Kernel& kernel, WeightFormat format) {
  const int64_t codes = format == WeightFormat::kInt4 ? kBlockUnits / (2 * kGroupUnits) * kPairBytes : kBlockDepth;
  return kernel.panel_features * (kFloatBytes + codes);
}

// ---- Writing ----------------------------------------------------------------------------------------------------

/// Writes one feature's weights into its panel.
struct FeatureWriter {
  const Kernel& kernel;
  std::byte* panel;
  int64_t feature;  // in the panel

  void WriteScale(std::byte* block, float scale) const {
    std::memcpy(block + feature * kFloatBytes, &scale, sizeof scale);
  }

  void WriteCodes(const QuantisedRow& row, int64_t first_unit, int64_t units, std::byte* to) const {
    for (int64_t unit = 0; unit < units; ++unit) {
      uint32_t four = 0;
      std::memcpy(&four, row.codes.data() + 4 * (first_unit + unit), sizeof four);
      four ^= 0x80808080U;
      std::memcpy(to + 4 * (unit * kernel.panel_features + feature), &four, sizeof four);
    }
  }

  void WritePair(const QuantisedRow& row, int64_t group, std::byte* to) const {
    const int64_t n = kernel.panel_features;
    for (int64_t i = 0; i < 2; ++i) {
      const auto at = static_cast<size_t>(group + i);
      to[2 * feature + i] = static_cast<std::byte>(row.zeros[at]);
      to[(2 + i) * n + feature] = static_cast<std::byte>(row.steps[at]);
      const uint8_t* nibbles = row.nibbles.data() + at * kGroupDepth;
      std::byte* rows = to + 4 * n + i * kGroupDepth / 2 * n;
      for (int64_t k = 0; k < kGroupDepth / 2; ++k) {
        rows[(k / 4 * n + feature) * 4 + k % 4] =
            static_cast<std::byte>(nibbles[k] | nibbles[k + kGroupDepth / 2] << 4);
      }
    }
  }

  void Write(const QuantisedRow& row) const {
    const auto units = static_cast<int64_t>(row.codes.size()) / 4;
    std::byte* block = panel;
    for (int64_t i = 0; i < BlocksOf(units); ++i, block += BlockBytes(kernel, kernel.format)) {
      WriteScale(block, row.scales[static_cast<size_t>(i)]);
      std::byte* codes = block + kernel.panel_features * kFloatBytes;
      if (kernel.format == WeightFormat::kInt8) {
        WriteCodes(row, i * kBlockUnits, UnitsOf(units, i), codes);
        continue;
      }
      for (int64_t unit = 0; unit < UnitsOf(units, i); unit += 2 * kGroupUnits) {
        WritePair(row, (i * kBlockUnits + unit) / kGroupUnits, codes);
        codes += kernel.panel_features * kPairBytes;
      }
    }
  }
};

// ---- Products -----------------------------------------------------------------------------------------------

/// One product: what its tiles share.
struct Tiles {
  const Kernel& kernel;
  const Block& block;

  [[nodiscard]] int64_t units() const { return block.x->units; }
  [[nodiscard]] size_t sums() const { return static_cast<size_t>(kernel.most_slice_rows * kernel.panel_features); }
  /// Bytes of a panel of int8.
  [[nodiscard]] int64_t CodeBytes() const {
    return kernel.panel_features * (4 * units() + BlocksOf(units()) * kFloatBytes);
  }
  [[nodiscard]] const std::byte* Panel(int64_t panel) const {
    return block.weights->data + static_cast<size_t>(panel) * kernel.PanelBytes(block.weights->depth);
  }

  void StoreSums(const float* sums, int64_t slice, int64_t panel) const {
    const int64_t feature = panel * kernel.panel_features;
    Store(*block.sink, sums, kernel.panel_features, slice * block.x->slice_rows, block.x->RowsOf(slice), feature,
          std::min(kernel.panel_features, block.weights->rows - feature));
  }

  /// sums += block `index` of the depth, whose int8 codes follow its scales.
  void AddBlock(int64_t slice, int64_t index, const std::byte* scales, const std::byte* codes, float* sums) const {
    const PackedRows& x = *block.x;
    const int64_t row = slice * x.slice_rows + index * x.rows;
    const IntegerBlock integers{x.Slice(slice) + index * kBlockUnits * 4 * x.Width(slice),
                                codes,
                                UnitsOf(units(), index),
                                x.offsets + row,
                                x.scales + row,
                                reinterpret_cast<const float*>(scales)};
    const IntegerFunction function =
        x.rows == 1 ? kernel.integers.alone : kernel.integers.tiles[static_cast<size_t>(x.RowsOf(slice))];
    function(integers, sums);
  }

  /// A slice times a panel of int8.
  void Multiply(int64_t slice, const std::byte* panel, float* sums) const {
    std::fill_n(sums, block.x->RowsOf(slice) * kernel.panel_features, 0.0f);
    const int64_t block_bytes = BlockBytes(kernel, WeightFormat::kInt8);
    for (int64_t i = 0; i < BlocksOf(units()); ++i, panel += block_bytes) {
      AddBlock(slice, i, panel, panel + kernel.panel_features * kFloatBytes, sums);
    }
  }

  /// One row times a panel of int4.
  void MultiplyRow(const std::byte* panel, float* sums) const {
    const PackedRows& x = *block.x;
    std::fill_n(sums, kernel.panel_features, 0.0f);
    for (int64_t i = 0; i < BlocksOf(units()); ++i, panel += BlockBytes(kernel, WeightFormat::kInt4)) {
      const NibbleBlock nibbles{x.Slice(0) + i * kBlockUnits * 4, x.group_sums + i * (kBlockUnits / kGroupUnits),
                                panel, UnitsOf(units(), i), x.scales[i]};
      kernel.integers.nibbles_alone(nibbles, sums);
    }
  }

  /// A slice times a panel of int4, whose blocks become codes in `memory` one by one.
  void MultiplyExpanded(int64_t slice, const std::byte* panel, std::byte* memory, float* sums) const {
    std::fill_n(sums, block.x->RowsOf(slice) * kernel.panel_features, 0.0f);
    for (int64_t i = 0; i < BlocksOf(units()); ++i, panel += BlockBytes(kernel, WeightFormat::kInt4)) {
      kernel.integers.expand(kernel, panel + kernel.panel_features * kFloatBytes, UnitsOf(units(), i), memory);
      AddBlock(slice, i, panel, memory, sums);
    }
  }

  /// A panel of int4 as one of int8.
  void Expand(const std::byte* panel, std::byte* to) const {
    const int64_t scales = kernel.panel_features * kFloatBytes;
    for (int64_t i = 0; i < BlocksOf(units()); ++i) {
      std::memcpy(to, panel, static_cast<size_t>(scales));
      kernel.integers.expand(kernel, panel + scales, UnitsOf(units(), i), to + scales);
      panel += BlockBytes(kernel, WeightFormat::kInt4);
      to += BlockBytes(kernel, WeightFormat::kInt8);
    }
  }
};

void MultiplyNibbles(const Tiles& tiles, float* sums) {
  const Block& block = tiles.block;
  const Kernel& kernel = tiles.kernel;
  if (block.slice_end - block.slice_begin == 1) {
    const bool direct = block.x->rows == 1 && kernel.integers.nibbles_alone != nullptr;
    auto* memory = block.scratch->Get<std::byte>(static_cast<size_t>(kBlockDepth * kernel.panel_features));
    for (int64_t panel = block.panel_begin; panel < block.panel_end; ++panel) {
      if (direct) {
        tiles.MultiplyRow(tiles.Panel(panel), sums);
      } else {
        tiles.MultiplyExpanded(block.slice_begin, tiles.Panel(panel), memory, sums);
      }
      tiles.StoreSums(sums, block.slice_begin, panel);
    }
    return;
  }
  const int64_t group = kernel.BlockPanels(block.weights->depth);
  auto* panels = block.scratch->Get<std::byte>(static_cast<size_t>(group * tiles.CodeBytes()));
  for (int64_t begin = block.panel_begin; begin < block.panel_end; begin += group) {
    const int64_t end = std::min(begin + group, block.panel_end);
    for (int64_t panel = begin; panel < end; ++panel) {
      tiles.Expand(tiles.Panel(panel), panels + (panel - begin) * tiles.CodeBytes());
    }
    for (int64_t slice = block.slice_begin; slice < block.slice_end; ++slice) {
      for (int64_t panel = begin; panel < end; ++panel) {
        tiles.Multiply(slice, panels + (panel - begin) * tiles.CodeBytes(), sums);
        tiles.StoreSums(sums, slice, panel);
      }
    }
  }
}

}  // namespace

void QuantisePanels(const Kernel& kernel, TensorView weights, const std::string& name, std::byte* panels) {
  const int64_t depth = weights.row_elements();
  const auto panel_bytes = kernel.PanelBytes(depth);
  const Team team(static_cast<int>(AvailableProcessors().size()));
  std::vector<int64_t> refused(static_cast<size_t>(kernel.Panels(weights.rows())), -1);  // an element of each panel
  team.Run(std::ssize(refused), [&](int64_t index, int) {
    std::byte* panel = panels + static_cast<size_t>(index) * panel_bytes;
    std::memset(panel, 0, panel_bytes);
    std::vector<float> values(static_cast<size_t>(depth));
    QuantisedRow row;
    for (int64_t i = 0; i < kernel.panel_features; ++i) {
      const int64_t feature = index * kernel.panel_features + i;
      if (feature >= weights.rows()) return;
      ConvertRows(Team(1), weights.Rows(feature, feature + 1), {values.data(), DType::kF32, {1, depth}});
      const int64_t bad = QuantiseWeights(kernel.format, values.data(), depth, row);
      if (bad >= 0) {
        refused[static_cast<size_t>(index)] = feature * depth + bad;
        return;
      }
      FeatureWriter{kernel, panel, i}.Write(row);
    }
  });
  for (const int64_t element : refused) {
    if (element < 0) continue;
    const int64_t row = element / depth;
    const int64_t column = element % depth;
    const double value = Dispatch(weights.dtype(), [&](auto zero) {
      return static_cast<double>(
          static_cast<float>(weights.As<decltype(zero)>()[row * weights.row_stride() + column]));
    });
    throw ConfigError(fmt::format("tensor '{}': [{}, {}] is {}, which {} cannot hold; expected finite weights", name,
                                  row, column, value, Name(kernel.format)));
  }
}

void MultiplyIntegers(const Kernel& kernel, const Block& block) {
  alignas(64) float sums[kMostIntegerSums];
  const Tiles tiles{kernel, block};
  if (kernel.format == WeightFormat::kInt4) return MultiplyNibbles(tiles, &sums[0]);
  const int64_t group = kernel.BlockPanels(block.weights->depth);
  for (int64_t begin = block.panel_begin; begin < block.panel_end; begin += group) {
    const int64_t end = std::min(begin + group, block.panel_end);
    for (int64_t slice = block.slice_begin; slice < block.slice_end; ++slice) {
      for (int64_t panel = begin; panel < end; ++panel) {
        tiles.Multiply(slice, tiles.Panel(panel), &sums[0]);
        tiles.StoreSums(&sums[0], slice, panel);
      }
    }
  }
}

void ExpandNibbles(const Kernel& kernel, const std::byte* groups, int64_t units, std::byte* codes) {
  const int64_t n = kernel.panel_features;
  for (int64_t first = 0; first < units; first += kGroupUnits) {
    const int64_t half = first / kGroupUnits % 2;
    const std::byte* pair = groups + first / (2 * kGroupUnits) * kPairBytes * n;
    const std::byte* rows = pair + 4 * n + half * kGroupDepth / 2 * n;
    for (int64_t i = 0; i < kGroupUnits / 2 * n; ++i) {
      const int64_t feature = i % n;
      const int step = static_cast<uint8_t>(pair[(2 + half) * n + feature]);
      const int zero = static_cast<int8_t>(pair[2 * feature + half]) + 128;
      for (int64_t k = 0; k < 4; ++k) {
        const int both = static_cast<uint8_t>(rows[4 * i + k]);
        std::byte* to = codes + 4 * (first * n + i) + k;
        to[0] = static_cast<std::byte>(step * (both & 15) + zero);
        to[kGroupUnits / 2 * n * 4] = static_cast<std::byte>(step * (both >> 4) + zero);
      }
    }
  }
}

}  // namespace runahead::cpu
