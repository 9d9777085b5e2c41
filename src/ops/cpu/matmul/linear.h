// Weight matrices of the CPU: packed for a kernel, or left in the mapped file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ops/cpu/matmul/kernel.h"
#include "ops/ops.h"

namespace runahead::cpu {

/// Matrices below this size, which a core's own cache nearly holds, multiply faster from panels, and cost next to
/// nothing to pack.
constexpr size_t kTooLargeToPack = size_t{8} << 20;  // bytes

/// Whether a lasting matrix, contiguous by rows, is multiplied where it is.
bool StaysInPlace(const Shape& matrix, DType stored, DType compute, size_t in_place_bytes = kTooLargeToPack);

/// Matrices that stay where they are if they are large, have the compute dtype and last; all others, and all of
/// another format than kStored, are packed into the device's memory, in the kernel's format or the arithmetic's
/// dtype.
class CpuLinear final : public Linear {
 public:
  /// The kernel must outlive this. Matrices of `in_place_bytes` bytes are large. Throws ConfigError when memory is
  /// short, and for weights that are not finite in formats that cannot hold them.
  CpuLinear(Device& device, const std::vector<LinearPart>& parts, DType compute, const Kernel& kernel,
            size_t in_place_bytes = kTooLargeToPack);

  [[nodiscard]] int64_t in_features() const override { return in_features_; }
  [[nodiscard]] int parts() const override { return static_cast<int>(part_begin_.size()) - 1; }
  [[nodiscard]] int64_t out_features(int first, int count) const override;

  [[nodiscard]] DType compute() const { return compute_; }
  [[nodiscard]] const Kernel& kernel() const { return kernel_; }
  /// Matrices [MatrixBegin(i), MatrixBegin(i + 1)) are part i; parts() is an index, too.
  [[nodiscard]] size_t MatrixBegin(int part) const { return part_begin_[static_cast<size_t>(part)]; }
  [[nodiscard]] const Matrix& matrix(size_t index) const { return matrices_[index]; }
  /// [rows of the matrix], or null.
  [[nodiscard]] const float* bias(size_t index) const {
    return biases_.empty() ? nullptr : biases_.data() + first_feature_[index];
  }

 private:
  [[nodiscard]] bool AllInPlace(const LinearPart& part) const;
  void AddMatrix(Matrix matrix);
  std::byte* Pack(TensorView weights, const std::string& name, std::byte* to);
  void AddBiases(const LinearPart& part, int64_t first_feature);

  int64_t in_features_;
  DType compute_;
  const Kernel& kernel_;
  size_t in_place_bytes_;
  std::vector<Matrix> matrices_;
  std::vector<int64_t> first_feature_;  // [matrices], of all features
  std::vector<size_t> part_begin_;      // [parts + 1], into matrices_
  Buffer packed_;
  std::vector<float> biases_;  // [all features], or empty
};

/// `parts` for activations of dtype `compute`, by the processor's fastest kernel; what has to be packed, in memory of
/// `device`. Throws ConfigError when it is short.
std::unique_ptr<Linear> PrepareLinear(Device& device, const std::vector<LinearPart>& parts, DType compute,
                                      WeightFormat format);

}  // namespace runahead::cpu
