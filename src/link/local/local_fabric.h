// Links between ranks of one process.
#pragma once

#include <memory>
#include <vector>

#include "link/link.h"

namespace runahead {

/// A fabric whose transfers are copies in host memory, made by whichever side posts last: no extra thread, no extra
/// copy.
std::unique_ptr<Fabric> MakeLocalFabric(int ranks);

/// A fabric between ranks on these GPUs, by their ordinals: copy engines move the spans, the host only enqueues.
/// Throws DeviceError, or ConfigError in a build without CUDA.
std::unique_ptr<Fabric> MakeCudaFabric(const std::vector<int>& gpus);

}  // namespace runahead
