#include "codec/row_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <vector>

#include "base/check.h"

namespace runahead {
namespace {

/// Bytes of a head of `features` codes, and of its scales.
size_t HeadBytes(WireFormat format, int64_t features, int64_t group) {
  constexpr int64_t kScaleBytes = 2;
  int64_t bytes = 0;
  for (int64_t begin = 0; begin < features; begin += group) {
    const int64_t n = std::min(group, features - begin);
    bytes += kScaleBytes + (format == WireFormat::kInt4 ? (n + 1) / 2 : n);
  }
  return static_cast<size_t>(bytes + bytes % 2);
}

cpu::HeadCoding CodingOf(WireFormat format, RowKind kind, int64_t features, DType dtype) {
  constexpr int64_t kFinestGroup = 32;  // int4's levels are few: a large number costs those beside it
  cpu::HeadCoding coding;
  coding.format = format;
  coding.dtype = dtype;
  coding.features = features;
  coding.group = format == WireFormat::kInt4 ? kFinestGroup : cpu::kPieceFeatures;
  coding.mixed = kind == RowKind::kKeys ? std::gcd(features, cpu::kPieceFeatures) : 1;
  coding.head_bytes = HeadBytes(format, features, coding.group);
  coding.bounds = kind == RowKind::kKeys;
  return coding;
}

}  // namespace

RowCodec::RowCodec(WireFormat format, RowKind kind, int64_t heads, int64_t features, DType dtype)
    : heads_(heads),
      exact_bytes_(static_cast<size_t>(heads * features) * SizeOf(dtype)),
      exact_(format == WireFormat::kExact),
      coding_(CodingOf(format, kind, features, dtype)) {
  CHECK_GT(heads, 0);
  CHECK_GT(features, 0);
  encoded_bytes_ = exact_ ? exact_bytes_ : static_cast<size_t>(heads) * coding_.head_bytes;
}

int64_t RowCodec::ExactOf(int64_t begin, int64_t rows) const {
  if (exact_) return rows;
  return std::clamp<int64_t>(kExactRows - begin, 0, rows);
}

size_t RowCodec::Bytes(int64_t begin, int64_t end) const {
  const int64_t exact = ExactOf(begin, end - begin);
  return static_cast<size_t>(exact) * exact_bytes_ + static_cast<size_t>(end - begin - exact) * encoded_bytes_;
}

void RowCodec::Check(const TensorView& rows, int64_t begin) const {
  CHECK_LE(0, begin);
  CHECK(rows.contiguous());
  CHECK(rows.dtype() == coding_.dtype);
  CHECK_EQ(rows.row_elements(), heads_ * coding_.features);
}

double RowCodec::Encode(const TensorView& rows, int64_t begin, std::span<std::byte> to, const cpu::Team& team) const {
  Check(rows, begin);
  CHECK_EQ(to.size(), Bytes(begin, begin + rows.rows()));
  const int64_t exact = ExactOf(begin, rows.rows());
  const auto* const from = static_cast<const std::byte*>(rows.data());
  const size_t copied = static_cast<size_t>(exact) * exact_bytes_;
  if (copied > 0) std::memcpy(to.data(), from, copied);
  const int64_t encoded = rows.rows() - exact;
  if (encoded == 0) return 0;
  std::vector<double> bounds(static_cast<size_t>(team.threads()), 0.0);
  const int64_t parts = std::min<int64_t>(team.threads(), encoded);
  team.Run(parts, [&](int64_t part, int) {
    const int64_t first = encoded * part / parts;
    const int64_t count = encoded * (part + 1) / parts - first;
    bounds[static_cast<size_t>(part)] =
        cpu::EncodeHeads(coding_, from + copied + static_cast<size_t>(first) * exact_bytes_, count * heads_,
                         to.data() + copied + static_cast<size_t>(first) * encoded_bytes_);
  });
  return *std::max_element(bounds.begin(), bounds.end());
}

Status RowCodec::Decode(std::span<const std::byte> from, int64_t begin, const TensorView& rows,
                        const cpu::Team& team) const {
  Check(rows, begin);
  const size_t expected = Bytes(begin, begin + rows.rows());
  if (from.size() != expected) {
    return Status::Failed(fmt::format("encoded rows [{}, {}): expected {} bytes, got {}", begin, begin + rows.rows(),
                                      expected, from.size()));
  }
  const int64_t exact = ExactOf(begin, rows.rows());
  auto* const to = static_cast<std::byte*>(rows.data());
  const size_t copied = static_cast<size_t>(exact) * exact_bytes_;
  if (copied > 0) std::memcpy(to, from.data(), copied);
  team.RunRanges(rows.rows() - exact, 1, [&](int64_t first, int64_t end) {
    cpu::DecodeHeads(coding_, from.data() + copied + static_cast<size_t>(first) * encoded_bytes_,
                     (end - first) * heads_, to + copied + static_cast<size_t>(first) * exact_bytes_);
  });
  return Status::Ok();
}

}  // namespace runahead
