// Failures of the CUDA runtime as exceptions, and the calling thread's current GPU.
#pragma once

#include <driver_types.h>

namespace runahead {

/// Throws DeviceError naming GPU `ordinal` and `what` unless `error` is cudaSuccess.
void CheckCuda(cudaError_t error, int ordinal, const char* what);

/// Lets `gpu` reach the memory of `peer` where the machine can; whether it does.
bool EnablePeerAccess(int gpu, int peer);

/// Makes a GPU the calling thread's current one while it lives.
class CurrentDevice {
 public:
  explicit CurrentDevice(int ordinal);
  ~CurrentDevice();
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
};

}  // namespace runahead
