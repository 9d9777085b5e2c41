// What a chunk costs a rank, from the model's shape alone.
#pragma once

#include "model/decoder_spec.h"
#include "plan/partition.h"

namespace runahead {

/// Linear (matmuls) and quadratic (attention) cost of a chunk of `spec`, in FLOPs of a matmul: an attention FLOP
/// counts as `attention_slowdown` of them, since kernels reach a smaller share of the ceiling in it.
ChunkCost AnalyticCost(const DecoderSpec& spec, double attention_slowdown);

}  // namespace runahead
