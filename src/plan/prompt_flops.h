// FLOPs of a part of a prompt.
#pragma once

#include <cstdint>

#include "plan/work_shape.h"

namespace runahead {

/// FLOPs of all layers for positions [begin, end), which see the positions before them.
double PromptFlops(const WorkShape& shape, int64_t begin, int64_t end);

}  // namespace runahead
