// Products of a few rows: what decoding does, bound by the memory that holds the weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ops/cpu/team.h"
#include "tensor/dtype.h"

namespace runahead::cpu {

/// Up to this many rows, reading the weights once costs more than the arithmetic.
constexpr int64_t kFewRows = 4;
/// Output features of one packed column. A column is [in_features, 64] f32, or [in_features / 2, 64, 2] bf16 (pairs
/// of input features side by side), padded with zeros to whole blocks of 16 and 32 input features.
constexpr int64_t kColumnFeatures = 64;

/// y = x W^T + b. x: [rows, in_features] of `arithmetic` (f32 or bf16), y: [rows, out_features] of `result` (f32, or
/// bf16 with bf16), both contiguous; weights: columns, or in place [out_features, in_features]; bias: [out_features]
/// or null.
struct FewRowsProduct {
  int64_t rows = 0;
  int64_t in_features = 0;
  int64_t out_features = 0;
  DType arithmetic = DType::kF32;
  DType result = DType::kF32;
  const void* x = nullptr;
  const void* weights = nullptr;
  bool in_place = false;
  const float* bias = nullptr;
  void* y = nullptr;
};

/// Calls `function` with the number of rows as a std::integral_constant.
template <typename Function>
void DispatchRows(int64_t rows, const Function& function) {
  static_assert(kFewRows == 4);
  if (rows == 1) return function(std::integral_constant<int, 1>());
  if (rows == 2) return function(std::integral_constant<int, 2>());
  if (rows == 3) return function(std::integral_constant<int, 3>());
  return function(std::integral_constant<int, 4>());
}

void MultiplyFewRows(const Team& team, const FewRowsProduct& product);

/// Columns [begin, end) in bf16 arithmetic, on processors that have it.
void MultiplyFewRowsBf16(const FewRowsProduct& product, int64_t begin, int64_t end);

}  // namespace runahead::cpu
