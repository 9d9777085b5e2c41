// Rows of numbers to int8 and int4: weights when they are loaded, activations in front of each product.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/weight_format.h"
#include "tensor/tensor_view.h"

namespace runahead::cpu {

/// One output feature's weights: weight k is codes[k] * scales[k / kBlockDepth]. In int4, codes[k] is steps[k /
/// kGroupDepth] * nibbles[k] + zeros[k / kGroupDepth].
struct QuantisedRow {
  std::vector<int8_t> codes;     // [depth, padded with zeros to kDepthMultiple]
  std::vector<float> scales;     // [blocks]
  std::vector<uint8_t> nibbles;  // [padded depth], 0 to 15; int4 only
  std::vector<uint8_t> steps;    // [groups], 1 to 17; int4 only
  std::vector<int8_t> zeros;     // [groups]; int4 only
};

/// Quantises `depth` numbers. Of int4's steps and zeros those with the least squared error are taken that a search
/// finds. Returns the index of the first number that is not finite, or -1. The result is the same on every processor.
int64_t QuantiseWeights(WeightFormat format, const float* weights, int64_t depth, QuantisedRow& row);

/// Where activations [rows, depth] go as integers: x[i][k] is about codes[i][k] * scales[k / kBlockDepth][i].
struct QuantisedRows {
  int8_t* codes = nullptr;        // [rows, padded depth], -127 to 127
  float* scales = nullptr;        // [blocks, rows], blocks `stride` apart
  int32_t* offsets = nullptr;     // as scales: -128 times the sum of a block's codes
  int16_t* group_sums = nullptr;  // [padded depth / kGroupDepth]: sums of codes of the only row; or null
  int64_t stride = 0;
  int64_t padded = 0;  // padded depth
};

/// Rounds to nearest even. A block with a number that is not finite has scale NaN; one without any of magnitude
/// 2^-100 is zeros.
void QuantiseActivations(const TensorView& x, const QuantisedRows& to);

}  // namespace runahead::cpu
