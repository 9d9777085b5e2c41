// Weights on their way to a GPU.
#pragma once

#include <vector>

#include "ops/cuda/matmul.h"
#include "ops/cuda/staging.h"
#include "ops/ops.h"

namespace runahead::cuda {

/// Puts the matrices and biases of a Linear's parts where products find them.
class MatrixPreparer {
 public:
  MatrixPreparer(Device& device, int ordinal, Uploader& uploader)
      : device_(device), ordinal_(ordinal), uploader_(uploader) {}

  /// In `compute`, or as e4m3 with a scale for each output. Throws ConfigError naming the matrix and row of a weight
  /// that e4m3 cannot hold.
  CudaLinear::Memory Prepare(const std::vector<LinearPart>& parts, DType compute, bool fp8);

 private:
  /// The weights of all parts as e4m3.
  void QuantiseWeights(const std::vector<LinearPart>& parts, CudaLinear::Memory& memory);
  /// Throws where a weight is not finite, which makes a scale none.
  void CheckFinite(const std::vector<LinearPart>& parts, const Buffer& scales);
  /// The biases of all parts; zeros where a part has none.
  Buffer PrepareBias(const std::vector<LinearPart>& parts, int64_t rows, DType dtype);

  Device& device_;
  int ordinal_;
  Uploader& uploader_;
};

}  // namespace runahead::cuda
