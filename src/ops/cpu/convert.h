// Rows of numbers from one dtype to another.
#pragma once

#include "ops/cpu/team.h"
#include "tensor/tensor_view.h"

namespace runahead::cpu {

/// to = from, rounded to nearest even. Same shape, any dtypes and row strides; not overlapping.
void ConvertRows(const Team& team, TensorView from, TensorView to);

/// to[i][j] = from[j][i] + bias[j], rounded to nearest even. from: [m, n], contiguous; bias: [m], or null; to: [n,
/// m].
void TransposeRows(const Team& team, TensorView from, const float* bias, TensorView to);

}  // namespace runahead::cpu
