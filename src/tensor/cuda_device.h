// NVIDIA GPUs as devices: memory, streams and copies. A build without CUDA has none of them.
#pragma once

#include <memory>

#include "tensor/device.h"

namespace runahead {

/// Whether this build can use GPUs at all.
bool BuiltWithCuda();

/// GPUs that this process may use; 0 without a driver, and in a build without CUDA.
int CudaDeviceCount();

/// GPU `ordinal`. Calls may come from any thread. Throws ConfigError naming the ordinal when there is no such GPU.
std::unique_ptr<Device> MakeCudaDevice(int ordinal);

}  // namespace runahead
