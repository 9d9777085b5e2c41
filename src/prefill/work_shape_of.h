// A model as plans see it.
#pragma once

#include "model/decoder_spec.h"
#include "plan/work_shape.h"

namespace runahead {

/// The sizes of `spec`, computed in `compute`, with weights in `format`; those of kStored are kept in `stored`.
/// expands_latents: as Abilities has it.
WorkShape WorkShapeOf(const DecoderSpec& spec, DType compute, WeightFormat format, DType stored,
                      bool expands_latents = false);
inline WorkShape WorkShapeOf(const DecoderSpec& spec, DType compute) {
  return WorkShapeOf(spec, compute, WeightFormat::kStored, compute);
}

}  // namespace runahead
