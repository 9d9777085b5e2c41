// Links between ranks of one process.
#pragma once

#include <memory>
#include <vector>

#include "link/link.h"
#include "link/throttle.h"

namespace runahead {

/// A fabric whose transfers are copies in host memory, made by whichever side posts last: no extra thread, no extra
/// copy. What `throttle` limits, if there is one, arrives late.
std::unique_ptr<Fabric> MakeLocalFabric(int ranks, std::shared_ptr<Throttle> throttle = nullptr);

/// A fabric between ranks on these GPUs, by their ordinals: copy engines move the spans, the host only enqueues.
/// Spans go through page-locked host memory without peer access, or with `through_host`. Throws DeviceError, or
/// ConfigError in a build without CUDA.
std::unique_ptr<Fabric> MakeCudaFabric(const std::vector<int>& gpus, bool through_host = false,
                                       std::shared_ptr<Throttle> throttle = nullptr);

}  // namespace runahead
