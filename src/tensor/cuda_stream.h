// A CUDA stream, for the rooms that enqueue GPU work.
#pragma once

#include <driver_types.h>

#include <memory>

#include "tensor/device.h"

namespace runahead {

/// Owns a non-blocking stream of GPU `ordinal`.
class CudaStream final : public Stream {
 public:
  CudaStream(int ordinal, cudaStream_t handle) : ordinal_(ordinal), handle_(handle) {}
  ~CudaStream() override;
  /// One for copies on GPU `ordinal`. Its priority is no matter to a copy, but keeps it out of the hardware queue of
  /// a stream that computes, where it would hold up whatever comes behind it.
  static std::unique_ptr<CudaStream> ForCopies(int ordinal);
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  std::unique_ptr<Mark> NewMark() override;
  void Synchronize() override;
  Status Drain(Deadline deadline) override;
  [[nodiscard]] cudaStream_t handle() const { return handle_; }

 private:
  int ordinal_;
  cudaStream_t handle_;
};

}  // namespace runahead
