// Causal attention over the rows of a KV-cache, blocked, with an online softmax.
#pragma once

#include "ops/cpu/scratch.h"
#include "ops/cpu/team.h"
#include "ops/ops.h"

namespace runahead::cpu {

/// See Ops::Attention. `scratch` is used during the call.
void Attend(const Team& team, Scratch& scratch, TensorView q, int64_t position, const KvRows& keys,
            const AttentionOptions& options, TensorView out);

}  // namespace runahead::cpu
