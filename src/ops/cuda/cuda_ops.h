// The operations on an NVIDIA GPU: cuBLASLt, cuDNN and our own kernels. A build without CUDA has none.
#pragma once

#include <memory>

#include "ops/ops.h"

namespace runahead {

/// Operations on GPU `ordinal`, whose `device` must outlive them. Nothing but the first sight of a shape allocates,
/// and nothing waits for the GPU but the preparation. `deterministic`: the results of a row have the same bits
/// whatever rows are computed with it, in this call or another; slower. Throws ConfigError where the GPU's libraries
/// are missing.
std::unique_ptr<Ops> MakeCudaOps(Device& device, int ordinal, bool deterministic = false);

}  // namespace runahead
