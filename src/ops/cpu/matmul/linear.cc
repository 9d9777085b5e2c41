#include "ops/cpu/matmul/linear.h"

#include <algorithm>

#include "ops/checks.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/matmul/integer_panels.h"
#include "ops/cpu/team.h"

namespace runahead::cpu {

bool StaysInPlace(const Shape& matrix, DType stored, DType compute, size_t in_place_bytes) {
  return stored == compute && static_cast<size_t>(matrix.elements()) * SizeOf(stored) >= in_place_bytes;
}

CpuLinear::CpuLinear(Device& device, const std::vector<LinearPart>& parts, DType compute, const Kernel& kernel,
                     size_t in_place_bytes)
    : in_features_(parts.front().weights.front().row_elements()),
      compute_(compute),
      kernel_(kernel),
      in_place_bytes_(in_place_bytes) {
  int64_t panels = 0;
  int64_t features = 0;
  bool has_bias = false;
  for (const LinearPart& part : parts) {
    const bool in_place = AllInPlace(part);
    for (const TensorView& matrix : part.weights) {
      if (!in_place) panels += kernel.Panels(matrix.rows());
      features += matrix.rows();
    }
    has_bias = has_bias || !part.biases.empty();
  }
  packed_ = device.Allocate(static_cast<size_t>(panels) * kernel.PanelBytes(in_features_));
  if (has_bias) biases_.assign(static_cast<size_t>(features), 0.0f);
  std::byte* to = packed_.data();
  part_begin_.push_back(0);
  for (const LinearPart& part : parts) {
    const int64_t first_feature = out_features(0, this->parts());
    const bool in_place = AllInPlace(part);
    for (size_t i = 0; i < part.weights.size(); ++i) {
      const TensorView& matrix = part.weights[i];
      if (in_place) {
        AddMatrix({static_cast<const std::byte*>(matrix.data()), matrix.dtype(), matrix.rows(), in_features_, false});
      } else {
        AddMatrix({to, kernel.arithmetic, matrix.rows(), in_features_, true});
        to = Pack(matrix, part.names.empty() ? "" : part.names[i], to);
      }
    }
    AddBiases(part, first_feature);
    part_begin_.push_back(matrices_.size());
  }
}

int64_t CpuLinear::out_features(int first, int count) const {
  int64_t sum = 0;
  for (size_t i = MatrixBegin(first); i < MatrixBegin(first + count); ++i) sum += matrices_[i].rows;
  return sum;
}

bool CpuLinear::AllInPlace(const LinearPart& part) const {
  return kernel_.format == WeightFormat::kStored && part.lasting &&
         std::all_of(part.weights.begin(), part.weights.end(), [&](const TensorView& matrix) {
           return matrix.contiguous() && StaysInPlace(matrix.shape(), matrix.dtype(), compute_, in_place_bytes_);
         });
}

void CpuLinear::AddMatrix(Matrix matrix) {
  first_feature_.push_back(matrices_.empty() ? 0 : first_feature_.back() + matrices_.back().rows);
  matrices_.push_back(matrix);
}

// Weights of another dtype are rounded to the compute dtype first, whatever the arithmetic: a model means the same on
// every device.
std::byte* CpuLinear::Pack(TensorView weights, const std::string& name, std::byte* to) {
  if (kernel_.format != WeightFormat::kStored) {
    QuantisePanels(kernel_, weights, name, to);
    return to + static_cast<size_t>(kernel_.Panels(weights.rows())) * kernel_.PanelBytes(in_features_);
  }
  std::vector<std::byte> rounded;
  if (weights.dtype() != compute_ || !weights.contiguous()) {
    rounded.resize(static_cast<size_t>(weights.shape().elements()) * SizeOf(compute_));
    const TensorView copy(rounded.data(), compute_, weights.shape());
    ConvertRows(Team(1), weights, copy);
    weights = copy;
  }
  const Matrix plain{static_cast<const std::byte*>(weights.data()), compute_, weights.rows(), in_features_, false};
  for (int64_t panel = 0; panel < kernel_.Panels(plain.rows); ++panel) {
    kernel_.pack_panel(kernel_, plain, panel, to);
    to += kernel_.PanelBytes(in_features_);
  }
  return to;
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

std::unique_ptr<Linear> PrepareLinear(Device& device, const std::vector<LinearPart>& parts, DType compute,
                                      WeightFormat format) {
  CheckParts(parts);
  return std::make_unique<CpuLinear>(device, parts, compute, KernelFor(compute, format));
}

}  // namespace runahead::cpu
