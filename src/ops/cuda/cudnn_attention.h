// Attention on the tensor cores through cuDNN.
#pragma once

#include <cstdint>
#include <memory>

#include "ops/cuda/kernels.h"
#include "ops/ops.h"

namespace runahead::cuda {

/// Runs attention on one GPU through cuDNN's graph API (flash attention, bottom-right causal). A plan is made, in
/// about a second, when heads, strides or options of a kind are first seen, and when a prompt is the first beyond
/// 1024, 4096, 16384, ... positions; no other length costs one. Used by one thread at a time.
class CudnnAttention {
 public:
  /// Throws ConfigError when the cuDNN library cannot be loaded.
  /// `deterministic`: one plan for many more positions, so that all queries go through the same kernel.
  CudnnAttention(Device& device, int ordinal, bool deterministic = false);
  ~CudnnAttention();
  CudnnAttention(const CudnnAttention&) = delete;
  CudnnAttention& operator=(const CudnnAttention&) = delete;

  /// Enqueues Ops::Attention and returns true; or returns false, having done nothing, when cuDNN does not do this
  /// shape, dtype or option.
  bool Attend(TensorView q, int64_t position, const KvRows& keys, const AttentionOptions& options, TensorView out,
              const LaunchOn& on);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace runahead::cuda
