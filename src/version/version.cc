#include "runahead/version.h"

#include "link/all_gather.h"
#include "ops/ops.h"
#include "runahead_commit.h"  // made by cmake/Commit.cmake
#include "tensor/cpu_features.h"
#include "tensor/cuda_device.h"

namespace runahead {

BuildInfo DescribeBuild() {
  BuildInfo info{RUNAHEAD_VERSION, RUNAHEAD_COMMIT, {"cpu"}, CpuFeatures(), CpuHasNativeBf16()};
  if (BuiltWithCuda()) info.parts.emplace_back("cuda");
  if (BuiltWithNccl()) info.parts.emplace_back("nccl");
  return info;
}

}  // namespace runahead
