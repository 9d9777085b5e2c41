#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "ops/cuda/kernels.h"
#include "runahead/error.h"

namespace runahead::cuda {

void CheckLaunch(cudaError_t error) {
  if (error == cudaSuccess) return;
  throw DeviceError(fmt::format("cuda: a kernel could not be launched: {}", cudaGetErrorString(error)));
}

}  // namespace runahead::cuda
