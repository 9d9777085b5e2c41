// The twin of cuda_device.cc for builds without CUDA.
#include <fmt/format.h>

#include "runahead/error.h"
#include "tensor/cuda_device.h"

namespace runahead {

bool BuiltWithCuda() { return false; }
int CudaDeviceCount() { return 0; }

std::unique_ptr<Device> MakeCudaDevice(int ordinal) {
  throw ConfigError(fmt::format("devices: cuda:{}: this build has no CUDA support", ordinal));
}

}  // namespace runahead
