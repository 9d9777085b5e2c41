// The operations on the first GPU against the oracle.
#pragma once

#include <fmt/format.h>

#include <memory>

#include "ops/cuda/cuda_ops.h"
#include "tensor/cuda_device.h"
#include "tests/ops/ops_testing.h"

namespace runahead::testing {

/// A copy of a host tensor, gaps and all, in a GPU's memory.
class Mirror {
 public:
  Mirror(Device& device, Stream& stream, HostTensor& host) : device_(device), stream_(stream), host_(host) {
    memory_ = device.Allocate(host.memory().size());
    device.CopyFromHost(memory_.data(), host.memory().data(), host.memory().size(), stream);
  }
  [[nodiscard]] TensorView view() const {
    const TensorView view = host_.view();
    return {memory_.data(), view.dtype(), view.shape(), view.row_stride()};
  }
  /// Copies back into the host tensor.
  void Fetch() { device_.CopyToHost(host_.memory().data(), memory_.data(), host_.memory().size(), stream_); }

 private:
  Device& device_;
  Stream& stream_;
  HostTensor& host_;
  Buffer memory_;
};

/// Skipped where there is no GPU.
class CudaOpsTest : public OpsTest {
 protected:
  static void SetUpTestSuite() {
    if (CudaDeviceCount() == 0) return;
    gpu_device = MakeCudaDevice(0).release();
    gpu = MakeCudaOps(*gpu_device, 0).release();  // once for all tests: libraries load for seconds
    gpu_stream = gpu_device->NewStream().release();
  }
  static void TearDownTestSuite() {
    delete gpu_stream;
    delete gpu;
    delete gpu_device;
    gpu_stream = nullptr;
    gpu = nullptr;
    gpu_device = nullptr;
  }
  void SetUp() override {
    if (gpu == nullptr) GTEST_SKIP() << "no NVIDIA GPU to test on";
  }

  static Mirror Put(HostTensor& host) { return {*gpu_device, *gpu_stream, host}; }

  inline static Device* gpu_device = nullptr;
  inline static Ops* gpu = nullptr;
  inline static Stream* gpu_stream = nullptr;
};

}  // namespace runahead::testing
