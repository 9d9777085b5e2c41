// The devices of an engine, as a user names them.
#pragma once

#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace runahead {

/// Ranks asked for by "cpu" (one) or "cpu:N". Throws ConfigError naming `text` for anything else, and for N outside 1
/// to 256.
int ParseCpuRanks(std::string_view text);

/// The processors that rank `index` of `ranks` is bound to: `threads` of its own while there are enough of them,
/// otherwise none in particular.
std::vector<int> ProcessorsOf(int index, int ranks, int threads);

/// What a model with such weights computes in unless told otherwise: bf16 where this processor multiplies it
/// natively, f32 elsewhere.
DType PreferredDType(DType weights);

}  // namespace runahead
