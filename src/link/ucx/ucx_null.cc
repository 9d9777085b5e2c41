// Stands in for UCX in builds without its headers.
#include "link/ucx/ucx_fabric.h"
#include "runahead/error.h"

namespace runahead {

bool BuiltWithUcx() { return false; }

std::shared_ptr<UcxPort> MakeUcxPort(const UcxOptions& /*options*/) {
  throw ConfigError("ranks in several processes: this build has no UCX; install libucx-dev and build again");
}

std::unique_ptr<Fabric> MakeUcxFabric(std::shared_ptr<UcxPort> /*port*/, const UcxGroup& /*group*/) {
  throw ConfigError("ranks in several processes: this build has no UCX; install libucx-dev and build again");
}

}  // namespace runahead
