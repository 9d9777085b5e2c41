// The devices of an engine, as a user names them.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace runahead {

/// Where one rank works.
struct RankDevice {
  std::optional<int> gpu;  // by its ordinal; none: threads of the CPU

  friend bool operator==(const RankDevice&, const RankDevice&) = default;
};

/// The ranks asked for by "cpu" (one), "cpu:N", "cuda" (the first GPU) or "cuda:A,B,..." (GPUs by their ordinals).
/// Throws ConfigError naming `text` for anything else, for N outside 1 to 256 and for a GPU named twice.
std::vector<RankDevice> ParseDevices(std::string_view text);

/// The processors that rank `index` of `ranks` is bound to: `threads` of its own while there are enough of them,
/// otherwise none in particular.
std::vector<int> ProcessorsOf(int index, int ranks, int threads);

/// What a model with such weights computes in on `device` unless told otherwise: the weights' own dtype on a GPU; on
/// the CPU bf16 where this processor multiplies it natively, f32 elsewhere.
DType PreferredDType(DType weights, const RankDevice& device = {});

}  // namespace runahead
