// The operations that work row by row and are bound by memory: see Ops for their contracts.
#pragma once

#include <cstdint>
#include <span>

#include "ops/cpu/team.h"
#include "ops/ops.h"

namespace runahead::cpu {

void Embed(const Team& team, std::span<const int32_t> tokens, TensorView table, float scale, TensorView out);
void Normalize(const Team& team, TensorView x, const Norm& norm, TensorView out);
void Add(const Team& team, TensorView x, TensorView delta);
/// Each head of `from`, normalised, into `to`, which may be `from`. from, to: [n, heads, head_dim].
void NormalizeHeads(const Team& team, TensorView from, const Norm& norm, TensorView to);
/// Rotated rows of `from` for positions [position, position + n) into `to`, which may be `from`.
void Rotate(const Team& team, TensorView from, const RopeTable& rope, int64_t position, TensorView to);
void GatedActivation(const Team& team, Activation activation, TensorView gate_up, TensorView out);
void Activate(const Team& team, Activation activation, TensorView x, TensorView out);
void Softcap(const Team& team, TensorView x, float cap);

}  // namespace runahead::cpu
