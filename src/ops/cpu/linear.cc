// Where oneDNN has blocked kernels, packed weights live in the layout that these read best: columns of 64 output
// features, outermost, each with all its input features. A column is contiguous, so panels of whole columns lie side
// by side and multiply as one matrix or alone.
#include "ops/cpu/linear.h"

#include <algorithm>
#include <string_view>

#include "ops/cpu/convert.h"
#include "ops/cpu/few_rows.h"
#include "ops/cpu/onednn_compat.h"

namespace runahead::cpu {
namespace {

using dnnl::memory;

memory::format_tag ColumnTag(DType arithmetic) {
  return arithmetic == DType::kBF16 ? memory::format_tag::BA16a64b2a : memory::format_tag::BA16a64b;
}

int64_t RowsOf(const LinearPart& part) {
  int64_t rows = 0;
  for (const TensorView& matrix : part.weights) rows += matrix.rows();
  return rows;
}

}  // namespace

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

DType ArithmeticOf(DType compute) {
  return compute == DType::kBF16 && TakesColumns(DType::kBF16) ? DType::kBF16 : DType::kF32;
}

memory::data_type TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return memory::data_type::f32;
    case DType::kBF16:
      return memory::data_type::bf16;
    case DType::kF16:
      return memory::data_type::f16;
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown dtype");
}

memory::desc RowMajor(int64_t rows, int64_t columns, DType dtype) {
  return {{rows, columns}, TypeOf(dtype), memory::format_tag::ab};
}

bool TakesColumns(DType arithmetic) {
  const auto probe = [](DType dtype) {
    try {
      const memory::desc square = RowMajor(64, 64, dtype);
      const dnnl::matmul::primitive_desc desc =
          DescribeMatmul(Engine(), square, {{64, 64}, TypeOf(dtype), ColumnTag(dtype)}, memory::desc(), square, {});
      return std::string_view(desc.impl_info_str()).find("ref") == std::string_view::npos;
    } catch (const dnnl::error&) {
      return false;
    }
  };
  static const bool bf16 = CpuHasNativeBf16() && probe(DType::kBF16);
  static const bool f32 = probe(DType::kF32);
  return arithmetic == DType::kBF16 ? bf16 : f32;
}

memory::desc PackedDesc(int64_t in_features, int64_t rows, DType arithmetic) {
  return {{in_features, rows},
          TypeOf(arithmetic),
          TakesColumns(arithmetic) ? ColumnTag(arithmetic) : memory::format_tag::ba};
}

// Where columns are taken, matrices that a core's own cache nearly holds multiply faster from them, and cost next to
// nothing to pack.
bool StaysInPlace(const Shape& matrix, DType stored, DType compute) {
  constexpr size_t kTooLargeToPack = size_t{8} << 20;
  if (stored != compute || compute != ArithmeticOf(compute)) return false;
  return static_cast<size_t>(matrix.elements()) * SizeOf(stored) >= kTooLargeToPack || !TakesColumns(compute);
}

CpuLinear::CpuLinear(Device& device, const std::vector<LinearPart>& parts, DType compute)
    : in_features_(parts.front().weights.front().row_elements()),
      compute_(compute),
      arithmetic_(ArithmeticOf(compute)) {
  size_t bytes = 0;
  int64_t features = 0;
  bool has_bias = false;
  for (const LinearPart& part : parts) {
    if (!AllInPlace(part)) bytes += PackedDesc(in_features_, RowsOf(part), arithmetic_).get_size();
    features += RowsOf(part);
    has_bias = has_bias || !part.biases.empty();
  }
  packed_ = device.Allocate(bytes);
  if (has_bias) biases_.assign(static_cast<size_t>(features), 0.0f);
  std::byte* to = packed_.data();
  part_begin_.push_back(0);
  for (const LinearPart& part : parts) {
    const int64_t first_feature = out_features(0, this->parts());
    if (AllInPlace(part)) {
      for (const TensorView& matrix : part.weights) {
        AddPanel(matrix.rows(), static_cast<const std::byte*>(matrix.data()), true);
      }
    } else {
      AddPanel(RowsOf(part), to, false);
      Pack(part, panels_.back(), to);
      to += PackedDesc(in_features_, RowsOf(part), arithmetic_).get_size();
    }
    AddBiases(part, first_feature);
    part_begin_.push_back(panels_.size());
  }
}

int64_t CpuLinear::out_features(int first, int count) const {
  int64_t sum = 0;
  for (size_t i = PanelBegin(first); i < PanelBegin(first + count); ++i) sum += panels_[i].rows;
  return sum;
}

size_t CpuLinear::Adjacent(size_t first, size_t end) const {
  const int64_t whole = TakesColumns(arithmetic_) ? kColumnFeatures : 1;
  size_t run = 1;
  while (first + run < end && !panels_[first].in_place && !panels_[first + run].in_place &&
         panels_[first + run - 1].rows % whole == 0) {
    ++run;
  }
  return run;
}

bool CpuLinear::AllInPlace(const LinearPart& part) const {
  return part.lasting && std::all_of(part.weights.begin(), part.weights.end(), [&](const TensorView& matrix) {
           return matrix.contiguous() && StaysInPlace(matrix.shape(), matrix.dtype(), compute_);
         });
}

void CpuLinear::AddPanel(int64_t rows, const std::byte* data, bool in_place) {
  const int64_t first_feature = panels_.empty() ? 0 : panels_.back().first_feature + panels_.back().rows;
  panels_.push_back({rows, first_feature, data, in_place});
}

void CpuLinear::Pack(const LinearPart& part, const Panel& panel, std::byte* to) const {
  TensorView source = part.weights.front();
  std::vector<std::byte> stacked;
  // Weights of another dtype are rounded to the compute dtype first, whatever the arithmetic: a model means the same
  // on every device.
  if (part.weights.size() > 1 || source.dtype() != arithmetic_ || compute_ != arithmetic_ || !source.contiguous()) {
    const Team one(1);
    const auto elements = static_cast<size_t>(panel.rows * in_features_);
    std::vector<std::byte> rounded(compute_ != arithmetic_ ? elements * SizeOf(compute_) : 0);
    stacked.resize(elements * SizeOf(arithmetic_));
    const TensorView all(stacked.data(), arithmetic_, {panel.rows, in_features_});
    int64_t row = 0;
    for (const TensorView& matrix : part.weights) {
      const TensorView rows = all.Rows(row, row + matrix.rows());
      if (compute_ != arithmetic_ && matrix.dtype() != compute_) {
        const TensorView middle(rounded.data(), compute_, matrix.shape());
        ConvertRows(one, matrix, middle);
        ConvertRows(one, middle, rows);
      } else {
        ConvertRows(one, matrix, rows);
      }
      row += matrix.rows();
    }
    source = all;
  }
  const memory::desc plain({in_features_, panel.rows}, TypeOf(arithmetic_), memory::format_tag::ba);
  const memory from(plain, Engine(), source.data());
  const memory packed(PackedDesc(in_features_, panel.rows, arithmetic_), Engine(), to);
  dnnl::stream stream(Engine());
  dnnl::reorder(from, packed).execute(stream, {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, packed}});
  stream.wait();
}

void CpuLinear::AddBiases(const LinearPart& part, int64_t first_feature) {
  auto feature = static_cast<size_t>(first_feature);
  for (const TensorView& bias : part.biases) {
    const int64_t n = bias.shape().elements();
    ConvertRows(Team(1), TensorView(bias.data(), bias.dtype(), {1, n}),
                TensorView(biases_.data() + feature, DType::kF32, {1, n}));
    feature += static_cast<size_t>(n);
  }
}

}  // namespace runahead::cpu
