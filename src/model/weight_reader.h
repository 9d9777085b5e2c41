// A model's tensors as its decoder wants them: in a dtype of ours, in the order of rows that operations expect.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/architectures.h"
#include "model/safetensors.h"

namespace runahead {

/// The tensor of a matrix's weights: its name and its shape in the file.
std::string WeightName(const MatrixSource& matrix);
Shape StoredShape(const MatrixSource& matrix);
/// The tensor of its bias.
std::string BiasName(const MatrixSource& matrix);
Shape BiasShape(const MatrixSource& matrix);
/// The tensor of the scales of MatrixLayout::kMxfp4.
std::string ScalesName(const MatrixSource& matrix);
Shape ScalesShape(const MatrixSource& matrix);

/// Reads tensors of `files`, which must outlive it and what it gives. Tensors of F64 become f32, and so do quantised
/// ones of GGUF files, packed matrices, and those of FP8 or int8 times the scales beside them.
class WeightReader {
 public:
  /// `scale_block`: rows and columns that share a scale of FP8 weights whose scales are a matrix.
  WeightReader(const WeightFiles& files, std::array<int64_t, 2> scale_block)
      : files_(files), scale_block_(scale_block) {}

  /// Any tensor as it is stored. Throws what WeightFiles::Find throws, and ConfigError for FP8 or int8 without
  /// scales.
  [[nodiscard]] HostTensor Read(const std::string& name, const Shape& shape) const;
  /// All rows of a matrix, [rows, columns], arranged; of MatrixLayouts of all experts those of [begin, end).
  [[nodiscard]] HostTensor Matrix(const MatrixSource& source) const;
  /// Its bias, [rows] or of [begin, end), arranged alike.
  [[nodiscard]] HostTensor Bias(const MatrixSource& source) const;

  /// Whether Matrix gives the file's own bytes.
  [[nodiscard]] bool IsAsStored(const MatrixSource& source) const;
  /// The tensor of scales that goes with an FP8 or int8 tensor, or nothing.
  [[nodiscard]] std::string ScalesOf(const std::string& name) const;

 private:
  [[nodiscard]] HostTensor Unpacked(const MatrixSource& source) const;
  /// A tensor of any dtype in f32.
  [[nodiscard]] HostTensor Floats(const NamedShape& tensor) const;
  /// One of the matrices of a tensor of all experts, [rows, columns].
  [[nodiscard]] HostTensor ExpertMatrix(const MatrixSource& source) const;
  [[nodiscard]] HostTensor ExpertOfBlocks(const MatrixSource& source, int64_t expert) const;
  [[nodiscard]] HostTensor Dequantized(const std::string& name, const Shape& shape, const StoredTensor& tensor,
                                       std::span<const std::byte> stored) const;

  const WeightFiles& files_;
  std::array<int64_t, 2> scale_block_;
};

/// A matrix with rows and columns exchanged.
HostTensor Transposed(TensorView from);

/// The stored row of each row that is wanted, for `rows` rows of paired heads.
std::vector<int64_t> PairedOrder(const PairedHeads& paired, int64_t rows);

}  // namespace runahead
