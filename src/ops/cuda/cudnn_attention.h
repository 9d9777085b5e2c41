// Attention on the tensor cores through cuDNN.
#pragma once

#include <driver_types.h>

#include <cstdint>
#include <memory>

#include "ops/ops.h"

namespace runahead::cuda {

/// Runs attention on one GPU through cuDNN's graph API (flash attention, bottom-right causal). A plan is made when a
/// shape is first seen: the first of a kind (heads, sizes, dtype) compiles a kernel for about a second, later ones
/// find it in a cache. Used by one thread at a time.
class CudnnAttention {
 public:
  /// Throws ConfigError when the cuDNN library cannot be loaded.
  CudnnAttention(Device& device, int ordinal);
  ~CudnnAttention();
  CudnnAttention(const CudnnAttention&) = delete;
  CudnnAttention& operator=(const CudnnAttention&) = delete;

  /// Enqueues Ops::Attention and returns true; or returns false, having done nothing, when cuDNN does not do this
  /// shape, dtype or option.
  bool Attend(TensorView q, int64_t position, const KvSpan& keys, const AttentionOptions& options, TensorView out,
              cudaStream_t stream);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace runahead::cuda
