#include "ops/cuda/matrix_preparer.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "runahead/error.h"
#include "tensor/cuda_check.h"

namespace runahead::cuda {

CudaLinear::Memory MatrixPreparer::Prepare(const std::vector<LinearPart>& parts, DType compute, bool fp8) {
  const int64_t in_features = parts.front().weights.front().row_elements();
  CudaLinear::Memory memory;
  memory.first_rows.push_back(0);
  bool biased = false;
  for (const LinearPart& part : parts) {
    int64_t rows = memory.first_rows.back();
    for (const TensorView& matrix : part.weights) rows += matrix.rows();
    memory.first_rows.push_back(rows);
    biased = biased || !part.biases.empty();
  }
  const int64_t rows = memory.first_rows.back();
  if (fp8) {
    QuantiseWeights(parts, memory);
  } else {
    memory.weights = device_.Allocate(static_cast<size_t>(rows * in_features) * SizeOf(compute));
    std::byte* target = memory.weights.data();
    for (const LinearPart& part : parts) {
      for (const TensorView& matrix : part.weights) {
        uploader_.Copy(matrix, target, compute);
        target += static_cast<size_t>(matrix.shape().elements()) * SizeOf(compute);
      }
    }
  }
  if (biased) {
    memory.wide_bias = PrepareBias(parts, rows, DType::kF32);
    memory.narrow_bias = PrepareBias(parts, rows, compute);
  }
  uploader_.Finish();
  if (fp8) CheckFinite(parts, memory.scales);
  return memory;
}

void MatrixPreparer::QuantiseWeights(const std::vector<LinearPart>& parts, CudaLinear::Memory& memory) {
  const int64_t rows = memory.first_rows.back();
  const int64_t in_features = parts.front().weights.front().row_elements();
  const auto bytes = static_cast<size_t>(rows * in_features);
  const auto room = static_cast<size_t>(kFp8Multiple * in_features);
  memory.weights = device_.Allocate(bytes + room);
  memory.scales = device_.Allocate(static_cast<size_t>(rows) * sizeof(float));
  const CurrentDevice current(ordinal_);
  CheckCuda(cudaMemset(memory.weights.data() + bytes, 0, room), ordinal_, "cudaMemset");
  CheckCuda(cudaDeviceSynchronize(), ordinal_, "cudaMemset");
  std::byte* target = memory.weights.data();
  auto* scales = reinterpret_cast<float*>(memory.scales.data());
  for (const LinearPart& part : parts) {
    for (size_t i = 0; i < part.weights.size(); ++i) {
      const TensorView& matrix = part.weights[i];
      uploader_.CopyAsE4M3(matrix, part.scales.empty() ? std::span<const float>() : part.scales[i], target, scales);
      target += matrix.shape().elements();
      scales += matrix.rows();
    }
  }
}

void MatrixPreparer::CheckFinite(const std::vector<LinearPart>& parts, const Buffer& scales) {
  std::vector<float> host(scales.bytes() / sizeof(float));
  const CurrentDevice current(ordinal_);
  CheckCuda(cudaMemcpy(host.data(), scales.data(), scales.bytes(), cudaMemcpyDeviceToHost), ordinal_, "cudaMemcpy");
  auto next = host.begin();
  for (const LinearPart& part : parts) {
    for (size_t i = 0; i < part.weights.size(); ++i) {
      const auto end = next + part.weights[i].rows();
      const auto bad = std::find_if(next, end, [](float scale) { return std::isnan(scale); });
      if (bad != end) {
        throw ConfigError(
            fmt::format("tensor '{}': row {} has a weight that is not finite, which fp8 cannot hold; "
                        "expected finite weights",
                        part.names.empty() ? "" : part.names[i], bad - next));
      }
      next = end;
    }
  }
}

Buffer MatrixPreparer::PrepareBias(const std::vector<LinearPart>& parts, int64_t rows, DType dtype) {
  Buffer buffer = device_.Allocate(static_cast<size_t>(rows) * SizeOf(dtype));
  const CurrentDevice current(ordinal_);
  CheckCuda(cudaMemset(buffer.data(), 0, buffer.bytes()), ordinal_, "cudaMemset");
  CheckCuda(cudaDeviceSynchronize(), ordinal_, "cudaMemset");
  std::byte* target = buffer.data();
  for (const LinearPart& part : parts) {
    for (size_t i = 0; i < part.weights.size(); ++i) {
      if (!part.biases.empty()) {
        // A vector may be one element per row: its memory is contiguous all the same.
        const TensorView bias(part.biases[i].data(), part.biases[i].dtype(), {part.weights[i].rows()});
        uploader_.Copy(bias, target, dtype);
      }
      target += static_cast<size_t>(part.weights[i].rows()) * SizeOf(dtype);
    }
  }
  return buffer;
}

}  // namespace runahead::cuda
