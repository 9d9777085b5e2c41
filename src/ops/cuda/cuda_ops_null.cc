// The twin of cuda_ops.cc for builds without CUDA.
#include <fmt/format.h>

#include "ops/cuda/cuda_ops.h"
#include "runahead/error.h"

namespace runahead {

std::unique_ptr<Ops> MakeCudaOps(Device& /*device*/, int ordinal, bool /*deterministic*/) {
  throw ConfigError(fmt::format("devices: cuda:{}: this build has no CUDA support", ordinal));
}

}  // namespace runahead
