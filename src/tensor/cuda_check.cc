#include "tensor/cuda_check.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "runahead/error.h"

namespace runahead {

void CheckCuda(cudaError_t error, int ordinal, const char* what) {
  if (error == cudaSuccess) return;
  throw DeviceError(fmt::format("cuda:{}: {} failed: {}", ordinal, what, cudaGetErrorString(error)));
}

bool EnablePeerAccess(int gpu, int peer) {
  if (gpu == peer) return true;
  int possible = 0;
  CheckCuda(cudaDeviceCanAccessPeer(&possible, gpu, peer), gpu, "cudaDeviceCanAccessPeer");
  if (possible == 0) return false;
  const CurrentDevice current(gpu);
  const cudaError_t enabled = cudaDeviceEnablePeerAccess(peer, 0);
  if (enabled == cudaErrorPeerAccessAlreadyEnabled) {
    (void)cudaGetLastError();  // somebody else did it
    return true;
  }
  CheckCuda(enabled, gpu, "cudaDeviceEnablePeerAccess");
  return true;
}

CurrentDevice::CurrentDevice(int ordinal) {
  CheckCuda(cudaGetDevice(&before_), ordinal, "cudaGetDevice");
  CheckCuda(cudaSetDevice(ordinal), ordinal, "cudaSetDevice");
}

CurrentDevice::~CurrentDevice() { (void)cudaSetDevice(before_); }

}  // namespace runahead
