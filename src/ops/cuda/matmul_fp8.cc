// Products of numbers of 8 bits: the rows of x become e4m3 block by block, with a scale for each, and are multiplied
// as such.
#include <algorithm>

#include "ops/cuda/matmul.h"

namespace runahead::cuda {
namespace {

constexpr int64_t kMostRows = 8192;                  // rows of a block: more are no faster
constexpr size_t kMostSumBytes = size_t{128} << 20;  // bytes of f32 sums at a time

int64_t RoundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Makes room for `bytes`.
void Grow(Device& device, Buffer& buffer, size_t bytes) {
  if (buffer.bytes() >= bytes) return;
  buffer = Buffer();
  buffer = device.Allocate(bytes);
}

}  // namespace

void Multiplier::ReserveCodes(int64_t in_features) { (void)RoomForCodes(kMostRows, in_features); }

Multiplier::Fp8Rows Multiplier::RoomForCodes(int64_t rows, int64_t in_features) {
  Grow(device_, codes_, static_cast<size_t>(rows * in_features));
  Grow(device_, row_scales_, static_cast<size_t>(rows) * sizeof(float));
  return {codes_.data(), reinterpret_cast<float*>(row_scales_.data())};
}

std::optional<Multiplier::Fp8Rows> Multiplier::PlaceForCodes(TensorView x) {
  coded_ = {};
  if (x.rows() > kMostRows || x.row_elements() % kFp8Multiple != 0) return std::nullopt;
  const Fp8Rows place = RoomForCodes(x.rows(), x.row_elements());
  coded_ = x;
  return place;
}

Multiplier::Fp8Rows Multiplier::QuantiseRows(TensorView x, const LaunchOn& on) {
  const Fp8Rows rows = RoomForCodes(x.rows(), x.row_elements());
  const bool there = coded_.data() != nullptr && coded_.data() == x.data() && coded_.rows() == x.rows() &&
                     coded_.row_elements() == x.row_elements() && coded_.row_stride() == x.row_stride();
  if (!there) Quantise(on, x, rows.codes, rows.scales);
  coded_ = {};
  return rows;
}

void Multiplier::MultiplyFp8(TensorView x, const CudaLinear& linear, int first, int count, bool adds, TensorView y,
                             const LaunchOn& on) {
  const int64_t blocks = (x.rows() + kMostRows - 1) / kMostRows;
  const int64_t each = blocks == 1 ? x.rows() : RoundUp((x.rows() + blocks - 1) / blocks, kFp8Multiple);
  for (int64_t begin = 0; begin < x.rows(); begin += each) {
    const int64_t end = std::min(begin + each, x.rows());
    const TensorView out = y.Rows(begin, end);
    const Fp8Rows rows = QuantiseRows(x.Rows(begin, end), on);
    const std::optional<Product> product = ScaledProduct(linear, first, count, adds, out);
    const Operands operands{rows.codes, linear.Weights(first), linear.Bias(first, y.dtype()),
                            out.data(), rows.scales,           linear.Scales(first)};
    if (product && MultiplyScaled(*product, operands, on.stream)) continue;
    MultiplySums(rows, linear, first, count, adds, out, on);
  }
}

void Multiplier::MultiplySums(const Fp8Rows& x, const CudaLinear& linear, int first, int count, bool adds,
                              TensorView y, const LaunchOn& on) {
  Product product;
  product.in_features = linear.in_features();
  // Outputs that are no multiple take rows of weights behind theirs along, of which nobody reads the sums.
  product.out_features = RoundUp(linear.out_features(first, count), kFp8Multiple);
  product.x_stride = product.in_features;
  product.y_stride = product.out_features;
  product.operand = Operand::kE4M3;
  product.compute = linear.compute();
  product.result = DType::kF32;
  const size_t row_bytes = static_cast<size_t>(product.out_features) * sizeof(float);
  const auto most = static_cast<int64_t>(std::max(kMostSumBytes / row_bytes, size_t{1}));
  Grow(device_, sums_, static_cast<size_t>(std::min(most, y.rows())) * row_bytes);
  const auto* const bias = static_cast<const float*>(linear.Bias(first, DType::kF32));
  for (int64_t begin = 0; begin < y.rows(); begin += most) {
    const int64_t end = std::min(begin + most, y.rows());
    product.rows = end - begin;
    Run(PlanOf(product), {x.codes + begin * product.in_features, linear.Weights(first), nullptr, sums_.data()},
        on.stream);
    const ScaledSums sums{reinterpret_cast<const float*>(sums_.data()), product.y_stride, x.scales + begin,
                          linear.Scales(first)};
    FinishSums(on, sums, bias, adds, y.Rows(begin, end));
  }
}

}  // namespace runahead::cuda
