// Latent attention of many queries on a GPU: to each head's own keys and values, made of the latent vectors.
#pragma once

#include "ops/cuda/cudnn_attention.h"
#include "ops/cuda/kernels.h"
#include "ops/cuda/matmul.h"
#include "ops/ops.h"

namespace runahead::cuda {

/// Makes queries, keys and values of some heads at a time in memory of its own. Used by one thread at a time.
class ExpandedAttention {
 public:
  ExpandedAttention(Device& device, Multiplier& multiplier, CudnnAttention& cudnn)
      : device_(device), multiplier_(multiplier), cudnn_(cudnn) {}

  /// Enqueues Ops::AttendToExpanded of keys whose pages follow each other; or returns false where cuDNN does not do
  /// this shape or dtype, or memory is short.
  bool Attend(const AttentionTask& task, const CudaLinear& keys, const CudaLinear& values, const LaunchOn& on);

 private:
  [[nodiscard]] bool MakeRoom(size_t bytes);
  bool AttendHeads(const AttentionTask& task, TensorView q, TensorView k, TensorView v, TensorView out,
                   const LaunchOn& on);

  Device& device_;
  Multiplier& multiplier_;
  CudnnAttention& cudnn_;
  Buffer room_;
};

}  // namespace runahead::cuda
