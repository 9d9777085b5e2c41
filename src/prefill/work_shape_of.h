// A model as plans see it.
#pragma once

#include "model/decoder_spec.h"
#include "plan/work_shape.h"

namespace runahead {

/// The sizes of `spec`, computed in `compute`.
WorkShape WorkShapeOf(const DecoderSpec& spec, DType compute);

}  // namespace runahead
