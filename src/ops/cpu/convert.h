// Rows of numbers from one dtype to another.
#pragma once

#include "ops/cpu/team.h"
#include "tensor/tensor_view.h"

namespace runahead::cpu {

/// to = from, rounded to nearest even. Same shape, any dtypes and row strides; not overlapping.
void ConvertRows(const Team& team, TensorView from, TensorView to);

}  // namespace runahead::cpu
