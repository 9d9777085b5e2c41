// The passage between GPUs in a build without CUDA.
#include "link/local/passage.h"
#include "runahead/error.h"

namespace runahead {

std::unique_ptr<Passage> MakeCudaPassage(int /*from_gpu*/, int /*to_gpu*/) {
  throw ConfigError("link: this build has no GPUs");
}

}  // namespace runahead
