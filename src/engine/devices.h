// The devices of an engine, as a user names them.
#pragma once

#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace runahead {

/// Ranks asked for by "cpu" (one) or "cpu:N". Throws ConfigError naming `text` for anything else, and for N outside 1
/// to 256.
int ParseCpuRanks(std::string_view text);

/// The processors that rank `index` of as many ranks as `threads` has entries is bound to: as many of its own as it
/// has threads while there are enough for all, otherwise none in particular.
std::vector<int> ProcessorsOf(int index, const std::vector<int>& threads);

/// What a model with such weights computes in unless told otherwise: bf16 where this processor multiplies it
/// natively, f32 elsewhere.
DType PreferredDType(DType weights);

}  // namespace runahead
