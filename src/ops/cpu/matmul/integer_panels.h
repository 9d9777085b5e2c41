// Panels of int8 and int4 weights, and products by them.
//
// A panel is its blocks of the depth one after another. A block begins with its features' scales [features], f32. In
// int8 codes follow: [units, features, 4], one byte each, plus 128, so that they are unsigned. In int4 pairs of
// groups follow, each of them zeros [features, 2 groups], one byte each, steps [2 groups, features], and for each
// group nibbles [4, features, 4]: unit u of the group in the lower half of a byte of row u, unit u + 4 in the upper
// half.
//
// A sum over a block is of integers, exact in any order, and becomes f32 behind it. Blocks are added in ascending
// order, each by one fused multiplication and addition: the bits are the same on every processor.
#pragma once

#include "ops/cpu/matmul/kernel.h"

namespace runahead::cpu {

constexpr int64_t kBlockUnits = kBlockDepth / 4;
constexpr int64_t kGroupUnits = kGroupDepth / 4;

/// Bytes of a pair of groups in an int4 panel, per feature.
constexpr int64_t kPairBytes = 2 + 2 + 2 * kGroupDepth / 2;

/// Most floats of a tile's sums.
constexpr int64_t kMostIntegerSums = 32 * 32;

/// Writes all panels of `weights`, [rows, depth] of any dtype: Kernel::PanelBytes each. Throws ConfigError where a
/// weight is not finite, naming `name`, the place and the value.
void QuantisePanels(const Kernel& kernel, TensorView weights, const std::string& name, std::byte* panels);

/// Kernel::multiply by Kernel::integers.
void MultiplyIntegers(const Kernel& kernel, const Block& block);

/// IntegerSteps::expand for any processor.
void ExpandNibbles(const Kernel& kernel, const std::byte* groups, int64_t units, std::byte* codes);

}  // namespace runahead::cpu
