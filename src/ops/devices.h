// The devices of an engine, as a user names them.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace runahead {

/// Where one rank works.
struct RankDevice {
  std::optional<int> gpu;  // ordinal of the GPU; none: threads of the CPU

  friend bool operator==(const RankDevice&, const RankDevice&) = default;
};

/// The ranks asked for by "cpu" (one), "cpu:N", "cuda" (the first GPU) or "cuda:A,B,..." or "cuda:A-B" (GPUs by their
/// ordinals; ranks on the same one share it, each with its own weights). Throws ConfigError naming `text` for
/// anything else and for N outside 1 to 256.
std::vector<RankDevice> ParseDevices(std::string_view text);

/// The processors that rank `index` of as many ranks as `threads` has entries is bound to: as many of its own as it
/// has threads while there are enough for all, otherwise none in particular.
std::vector<int> ProcessorsOf(int index, const std::vector<int>& threads);

/// What a model with such weights computes in on `device` unless told otherwise: the weights' own dtype on a GPU; on
/// the CPU bf16 where this processor multiplies it natively, f32 elsewhere.
DType PreferredDType(DType weights, const RankDevice& device = {});

}  // namespace runahead
