// The passages between GPUs in a build without CUDA.
#include "link/local/passage.h"
#include "runahead/error.h"

namespace runahead {

std::unique_ptr<GpuPassages> MakeGpuPassages(const std::vector<int>& /*gpus*/, bool /*through_host*/,
                                             std::shared_ptr<Throttle> /*throttle*/) {
  throw ConfigError("link: this build has no GPUs");
}

}  // namespace runahead
