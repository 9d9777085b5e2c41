// The all-gather in a build without NCCL.
#include "link/all_gather.h"
#include "runahead/error.h"

namespace runahead {

bool BuiltWithNccl() { return false; }

std::unique_ptr<AllGather> MakeNcclAllGather(const std::vector<int>& /*gpus*/) {
  throw ConfigError("gather: this build has no NCCL");
}

}  // namespace runahead
