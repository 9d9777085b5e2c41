#include "model/weight_reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "model/gguf/dequantise.h"
#include "runahead/error.h"

namespace runahead {
namespace {

/// A tensor of its own memory.
HostTensor NewTensor(DType dtype, const Shape& shape) {
  HostTensor tensor;
  tensor.copy.resize(static_cast<size_t>(shape.elements()) * SizeOf(dtype));
  tensor.view = TensorView(tensor.copy.data(), dtype, shape);
  return tensor;
}

/// An 8-bit number with 4 bits of exponent and 3 of mantissa, without infinities ("FP8 Formats for Deep Learning",
/// Micikevicius et al. 2022, table 1).
float FromE4M3(uint8_t bits) {
  constexpr int kBias = 7;
  const int exponent = bits >> 3 & 15;
  const int mantissa = bits & 7;
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), 1 - kBias - 3)
                                   : std::ldexp(static_cast<float>(8 + mantissa), exponent - kBias - 3);
  const float value = (bits & 0x7f) == 0x7f ? NAN : size;
  return (bits & 0x80) != 0 ? -value : value;
}

constexpr int64_t kMxfp4Block = 32;       // numbers with a scale in common
constexpr int64_t kMxfp4BlockBytes = 16;  // two numbers a byte, the lower half first

int64_t BlocksOf(int64_t columns) { return (columns + kMxfp4Block - 1) / kMxfp4Block; }

/// A row of MXFP4 ("OCP Microscaling Formats", 2023, sections 5.3.3 and 5.4.1): numbers of 1 bit of sign, 2 of
/// exponent and 1 of mantissa, times powers of two.
void ReadMxfp4Row(const std::byte* blocks, const std::byte* scales, int64_t columns, float* row) {
  constexpr int kBias = 127;
  constexpr std::array<float, 16> kValues = {0,     0.5F,  1,     1.5F,  2,     3,     4,     6,
                                             -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};
  for (int64_t first = 0; first < columns; first += kMxfp4Block) {
    const float scale = std::ldexp(1.0F, std::to_integer<int>(scales[first / kMxfp4Block]) - kBias);
    for (int64_t i = first; i < std::min(first + kMxfp4Block, columns); ++i) {
      const auto pair = std::to_integer<unsigned>(blocks[i / 2]);
      row[i] = scale * kValues[(i % 2 == 0 ? pair : pair >> 4) & 15];
    }
  }
}

/// What each byte of a dtype stands for.
std::array<float, 256> ValuesOf(float (*value)(uint8_t)) {
  std::array<float, 256> values{};
  for (size_t i = 0; i < values.size(); ++i) values[i] = value(static_cast<uint8_t>(i));
  return values;
}

float FromInt8(uint8_t bits) { return static_cast<float>(static_cast<int8_t>(bits)); }

/// Row i of the result is row order[i] of `from`. from: [rows, any].
HostTensor Reordered(TensorView from, const std::vector<int64_t>& order) {
  HostTensor to = NewTensor(from.dtype(), from.shape());
  const size_t bytes = from.bytes() / order.size();
  for (size_t i = 0; i < order.size(); ++i) {
    std::memcpy(to.copy.data() + i * bytes,
                static_cast<const std::byte*>(from.data()) + static_cast<size_t>(order[i]) * bytes, bytes);
  }
  return to;
}

}  // namespace

HostTensor Transposed(TensorView from) {
  const int64_t rows = from.row_elements();
  HostTensor to = NewTensor(from.dtype(), {rows, from.rows()});
  Dispatch(from.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* source = from.As<T>();
    T* target = to.view.As<T>();
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < from.rows(); ++j) *target++ = source[j * rows + i];
    }
  });
  return to;
}

namespace {

/// Rows divided by their lengths, in f32.
HostTensor UnitRows(TensorView from) {
  constexpr double kShortest = 1e-12;  // what torch's normalize divides by at least
  HostTensor to = NewTensor(DType::kF32, from.shape());
  Dispatch(from.dtype(), [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = 0; i < from.rows(); ++i) {
      const T* source = from.As<T>() + i * from.row_elements();
      float* target = to.view.As<float>() + i * from.row_elements();
      double squares = 0;
      for (int64_t j = 0; j < from.row_elements(); ++j) {
        const auto value = static_cast<double>(static_cast<float>(source[j]));
        squares += value * value;
      }
      const auto length = static_cast<float>(std::max(std::sqrt(squares), kShortest));
      for (int64_t j = 0; j < from.row_elements(); ++j) target[j] = static_cast<float>(source[j]) / length;
    }
  });
  return to;
}

}  // namespace

std::string WeightName(const MatrixSource& matrix) {
  if (matrix.packed) return PackedTensors(*matrix.packed, matrix.name, matrix.rows, matrix.columns)[0].name;
  switch (matrix.layout) {
    case MatrixLayout::kWeight:
      return matrix.name + ".weight";
    case MatrixLayout::kBare:
      return matrix.name;
    case MatrixLayout::kMxfp4:
      return matrix.name + "_blocks";
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown layout");
}

Shape StoredShape(const MatrixSource& matrix) {
  const int64_t rows = matrix.matrices > 0 ? matrix.rows / matrix.matrices : matrix.rows;
  switch (matrix.layout) {
    case MatrixLayout::kWeight:
      if (matrix.matrices > 0) return {matrix.matrices, rows, matrix.columns};
      return matrix.transposed ? Shape{matrix.columns, rows} : Shape{rows, matrix.columns};
    case MatrixLayout::kBare:
      return {matrix.matrices, matrix.columns, rows};
    case MatrixLayout::kMxfp4:
      return {matrix.matrices, rows, BlocksOf(matrix.columns), kMxfp4BlockBytes};
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown layout");
}

std::string BiasName(const MatrixSource& matrix) {
  return (matrix.biased_as.empty() ? matrix.name : matrix.biased_as) +
         (matrix.layout == MatrixLayout::kWeight ? ".bias" : "_bias");
}

Shape BiasShape(const MatrixSource& matrix) {
  if (matrix.layout == MatrixLayout::kWeight) return {matrix.rows};
  return {matrix.matrices, matrix.rows / matrix.matrices};
}

std::string ScalesName(const MatrixSource& matrix) { return matrix.name + "_scales"; }

Shape ScalesShape(const MatrixSource& matrix) {
  return {matrix.matrices, matrix.rows / matrix.matrices, BlocksOf(matrix.columns)};
}

std::vector<int64_t> PairedOrder(const PairedHeads& paired, int64_t rows) {
  std::vector<int64_t> order;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = row / paired.head_dim * paired.head_dim;
    const int64_t feature = row - head - paired.first;
    const int64_t half = paired.rotary_dim / 2;
    const int64_t stored = feature < 0 || feature >= paired.rotary_dim ? feature
                           : feature < half                            ? 2 * feature
                                                                       : 2 * (feature - half) + 1;
    order.push_back(head + paired.first + stored);
  }
  return order;
}

namespace {

/// The scales of rows of which `block` share one of `scales`; empty where products with them would not be exact
/// enough to be undone.
std::vector<float> ScalesOfRows(TensorView scales, int64_t rows, int64_t block) {
  constexpr float kMost = 0x1p100F;
  std::vector<float> of_rows(static_cast<size_t>(rows));
  Dispatch(scales.dtype(), [&](auto zero) {
    const auto* const from = scales.As<decltype(zero)>();
    for (int64_t i = 0; i < rows; ++i) of_rows[static_cast<size_t>(i)] = static_cast<float>(from[i / block]);
  });
  const bool usual =
      std::all_of(of_rows.begin(), of_rows.end(), [](float scale) { return scale >= 1 / kMost && scale <= kMost; });
  return usual ? of_rows : std::vector<float>();
}

}  // namespace

HostTensor WeightReader::Read(const std::string& name, const Shape& shape) const {
  const auto [file, tensor] = files_.Find(name, shape);
  if (StoredDType(tensor->dtype)) return files_.Read(name, shape);
  const std::span<const std::byte> bytes = file->Bytes(*tensor);
  if (tensor->dtype == kFp8Name || tensor->dtype == kInt8Name) return Dequantized(name, shape, *tensor, bytes);
  HostTensor narrow = NewTensor(DType::kF32, shape);
  if (tensor->quantised != nullptr) {
    gguf::Dequantise(*tensor->quantised, bytes, narrow.view.As<float>());
    return narrow;
  }
  for (int64_t i = 0; i < shape.elements(); ++i) {
    double wide = 0;
    std::memcpy(&wide, bytes.data() + static_cast<size_t>(i) * sizeof(wide), sizeof(wide));
    narrow.view.As<float>()[i] = static_cast<float>(wide);
  }
  return narrow;
}

HostTensor WeightReader::Floats(const NamedShape& tensor) const {
  const HostTensor stored = Read(tensor.name, tensor.shape);
  HostTensor floats = NewTensor(DType::kF32, tensor.shape);
  Dispatch(stored.view.dtype(), [&](auto zero) {
    const auto* const from = stored.view.As<decltype(zero)>();
    std::transform(from, from + tensor.shape.elements(), floats.view.As<float>(),
                   [](auto value) { return static_cast<float>(value); });
  });
  return floats;
}

std::string WeightReader::ScalesOf(const std::string& name) const {
  for (const char* suffix : {"_scale_inv", "_scale"}) {
    if (files_.Has(name + suffix)) return name + suffix;
  }
  return "";
}

HostTensor WeightReader::Dequantized(const std::string& name, const Shape& shape, const StoredTensor& tensor,
                                     std::span<const std::byte> stored) const {
  static const std::array<float, 256> e4m3 = ValuesOf(FromE4M3);
  static const std::array<float, 256> int8 = ValuesOf(FromInt8);
  const bool is_fp8 = tensor.dtype == kFp8Name;
  const std::array<float, 256>& values = is_fp8 ? e4m3 : int8;
  const std::string scales_name = ScalesOf(name);
  if (scales_name.empty()) {
    throw ConfigError(
        fmt::format("tensor {}: it is {}, and there is no {}_scale_inv or {}_scale", name, tensor.dtype, name, name));
  }
  const std::vector<int64_t>& extents = files_.tensors().at(scales_name).tensor->shape;
  const Shape scale_shape = extents.empty()       ? Shape{}
                            : extents.size() == 1 ? Shape{extents[0]}
                                                  : Shape{extents[0], extents[1]};
  const HostTensor scales = Read(scales_name, scale_shape);
  const int64_t rows = shape[0];
  const int64_t columns = shape.row_elements();
  const auto blocks = [](int64_t n, int64_t block) { return (n + block - 1) / block; };
  std::array<int64_t, 2> block = scale_block_;
  if (scale_shape.elements() == 1) {
    block = {rows, columns};
  } else if (scale_shape.elements() == rows && scale_shape[0] == rows) {
    block = {1, columns};
  } else if (scale_shape.rank() != 2 || scale_shape[0] != blocks(rows, block[0]) ||
             scale_shape[1] != blocks(columns, block[1])) {
    throw ConfigError(fmt::format("tensor {}: scales of shape [{}] do not fit {} rows of {} in blocks of {} x {}",
                                  scales_name, fmt::join(extents, ", "), rows, columns, block[0], block[1]));
  }
  const int64_t scale_columns = blocks(columns, block[1]);
  HostTensor result = NewTensor(DType::kF32, shape);
  if (is_fp8 && block[1] == columns) result.scales = ScalesOfRows(scales.view, rows, block[0]);
  Dispatch(scales.view.dtype(), [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = 0; i < rows; ++i) {
      const T* scale = scales.view.As<T>() + i / block[0] * scale_columns;
      for (int64_t j = 0; j < columns; ++j) {
        const auto bits = std::to_integer<uint8_t>(stored[static_cast<size_t>(i * columns + j)]);
        result.view.As<float>()[i * columns + j] = values[bits] * static_cast<float>(scale[j / block[1]]);
      }
    }
  });
  return result;
}

bool WeightReader::IsAsStored(const MatrixSource& source) const {
  if (source.layout != MatrixLayout::kWeight || source.packed) return false;
  const StoredTensor& tensor = *files_.Find(WeightName(source), StoredShape(source)).tensor;
  const std::optional<DType> dtype = StoredDType(tensor.dtype);
  return dtype && IsAligned(tensor, *dtype) && source.paired.rotary_dim == 0 && !source.transposed &&
         !source.unit_rows;
}

HostTensor WeightReader::ExpertOfBlocks(const MatrixSource& source, int64_t expert) const {
  const auto bytes = [&](const std::string& name, const Shape& shape) {
    const auto [file, tensor] = files_.Find({name, shape, kBytesName});
    return file->Bytes(*tensor).data();
  };
  const int64_t rows = source.rows / source.matrices;
  const int64_t row_scales = BlocksOf(source.columns);
  const std::byte* blocks = bytes(WeightName(source), StoredShape(source));
  const std::byte* scales = bytes(ScalesName(source), ScalesShape(source));
  HostTensor matrix = NewTensor(DType::kF32, {rows, source.columns});
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t first = (expert * rows + row) * row_scales;
    ReadMxfp4Row(blocks + first * kMxfp4BlockBytes, scales + first, source.columns,
                 matrix.view.As<float>() + row * source.columns);
  }
  return matrix;
}

HostTensor WeightReader::ExpertMatrix(const MatrixSource& source) const {
  const int64_t rows = source.rows / source.matrices;
  const int64_t expert = source.begin / rows;
  CHECK_EQ(source.end, (expert + 1) * rows);
  if (source.layout == MatrixLayout::kMxfp4) return ExpertOfBlocks(source, expert);
  const HostTensor all = Read(WeightName(source), StoredShape(source));
  const TensorView own = all.view.Rows(expert, expert + 1);
  return Transposed(TensorView(own.data(), own.dtype(), {source.columns, rows}));
}

HostTensor WeightReader::Unpacked(const MatrixSource& source) const {
  const PackedFormat& format = *source.packed;
  const HostTensor scales = Floats(PackedTensors(format, source.name, source.rows, source.columns)[1]);
  HostTensor matrix = NewTensor(DType::kF32, {source.rows, source.columns});
  Unpack(files_, format, source.name, source.rows, source.columns, scales.view.As<float>(), matrix.view.As<float>());
  return matrix;
}

HostTensor WeightReader::Matrix(const MatrixSource& source) const {
  if (source.layout != MatrixLayout::kWeight) {
    HostTensor matrix = ExpertMatrix(source);
    if (source.paired.rotary_dim == 0) return matrix;
    return Reordered(matrix.view, PairedOrder(source.paired, matrix.view.rows()));
  }
  HostTensor matrix = source.packed ? Unpacked(source) : Read(WeightName(source), StoredShape(source));
  if (source.matrices > 0) {
    matrix.view = TensorView(matrix.view.data(), matrix.view.dtype(), {source.rows, source.columns});
    matrix.scales.clear();
  }
  if (source.transposed && !source.packed) matrix = Transposed(matrix.view);
  if (source.unit_rows) matrix = UnitRows(matrix.view);
  if (source.paired.rotary_dim != 0) matrix = Reordered(matrix.view, PairedOrder(source.paired, source.rows));
  return matrix;
}

HostTensor WeightReader::Bias(const MatrixSource& source) const {
  HostTensor bias = Read(BiasName(source), BiasShape(source));
  if (source.layout != MatrixLayout::kWeight) {
    const int64_t rows = source.rows / source.matrices;
    const TensorView own = bias.view.Rows(source.begin / rows, source.begin / rows + 1);
    bias.view = TensorView(own.data(), own.dtype(), {rows});
  }
  if (source.paired.rotary_dim != 0) bias = Reordered(bias.view, PairedOrder(source.paired, bias.view.rows()));
  return bias;
}

}  // namespace runahead
