#include "tensor/cuda_check.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "runahead/error.h"

namespace runahead {

void CheckCuda(cudaError_t error, int ordinal, const char* what) {
  if (error == cudaSuccess) return;
  throw DeviceError(fmt::format("cuda:{}: {} failed: {}", ordinal, what, cudaGetErrorString(error)));
}

CurrentDevice::CurrentDevice(int ordinal) {
  CheckCuda(cudaGetDevice(&before_), ordinal, "cudaGetDevice");
  CheckCuda(cudaSetDevice(ordinal), ordinal, "cudaSetDevice");
}

CurrentDevice::~CurrentDevice() { (void)cudaSetDevice(before_); }

}  // namespace runahead
