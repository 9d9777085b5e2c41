// Weight matrices of the CPU: packed for oneDNN, or left in the mapped file.
#pragma once

#include <cstdint>
#include <dnnl.hpp>
#include <vector>

#include "ops/ops.h"

namespace runahead::cpu {

/// The processor, as oneDNN sees it.
const dnnl::engine& Engine();

dnnl::memory::data_type TypeOf(DType dtype);

/// What products of this compute dtype are made in, and their weights kept in.
DType ArithmeticOf(DType compute);

/// [rows, columns], contiguous.
dnnl::memory::desc RowMajor(int64_t rows, int64_t columns, DType dtype);

/// Whether the library has fast kernels for weights in columns: oneDNN has, from AVX-512 on.
bool TakesColumns(DType arithmetic);

/// Packed weights: columns, or where the library does not take them, rows as they come, [rows, in_features].
dnnl::memory::desc PackedDesc(int64_t in_features, int64_t rows, DType arithmetic);

/// Whether a lasting matrix, contiguous by rows, is multiplied where it is.
bool StaysInPlace(const Shape& matrix, DType stored, DType compute);

/// Output features whose weights lie together. All panels of a part, in order, make up its features.
struct Panel {
  int64_t rows = 0;
  int64_t first_feature = 0;        // of all of the Linear
  const std::byte* data = nullptr;  // PackedDesc, or in place [rows, in_features]
  bool in_place = false;            // row-major, where the model's loader found it
};

/// Weights in the dtype that they are multiplied in. Large matrices that need no conversion and last stay where they
/// are; all others are packed into the device's memory.
class CpuLinear final : public Linear {
 public:
  /// Throws ConfigError when memory is short.
  CpuLinear(Device& device, const std::vector<LinearPart>& parts, DType compute);

  [[nodiscard]] int64_t in_features() const override { return in_features_; }
  [[nodiscard]] int parts() const override { return static_cast<int>(part_begin_.size()) - 1; }
  [[nodiscard]] int64_t out_features(int first, int count) const override;

  [[nodiscard]] DType compute() const { return compute_; }
  [[nodiscard]] DType arithmetic() const { return arithmetic_; }
  [[nodiscard]] bool has_bias() const { return !biases_.empty(); }
  /// Panels [PanelBegin(i), PanelBegin(i + 1)) are part i; parts() is an index, too.
  [[nodiscard]] size_t PanelBegin(int part) const { return part_begin_[static_cast<size_t>(part)]; }
  [[nodiscard]] const Panel& panel(size_t index) const { return panels_[index]; }
  /// [rows of the panel and those after it], or null.
  [[nodiscard]] const float* bias(const Panel& panel) const {
    return has_bias() ? biases_.data() + panel.first_feature : nullptr;
  }
  /// How many panels from `first`, before `end`, follow each other without padding: they multiply as one matrix.
  [[nodiscard]] size_t Adjacent(size_t first, size_t end) const;

 private:
  [[nodiscard]] bool AllInPlace(const LinearPart& part) const;
  void AddPanel(int64_t rows, const std::byte* data, bool in_place);
  void Pack(const LinearPart& part, const Panel& panel, std::byte* to) const;
  void AddBiases(const LinearPart& part, int64_t first_feature);

  int64_t in_features_;
  DType compute_;
  DType arithmetic_;
  std::vector<Panel> panels_;
  std::vector<size_t> part_begin_;  // [parts + 1], into panels_
  Buffer packed_;
  std::vector<float> biases_;  // [all features], or empty
};

}  // namespace runahead::cpu
