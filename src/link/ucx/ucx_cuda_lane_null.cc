// The twin of ucx_cuda_lane.cc for builds without CUDA.
#include "link/ucx/ucx_lane.h"

namespace runahead {

std::unique_ptr<UcxLane> MakeUcxCudaLane(Device& /*device*/, bool /*gpu_memory*/) { return nullptr; }

}  // namespace runahead
