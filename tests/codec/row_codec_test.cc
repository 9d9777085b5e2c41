#include "codec/row_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace runahead {
namespace {

constexpr WireFormat kLossy[] = {WireFormat::kInt8, WireFormat::kFp8, WireFormat::kInt4};

/// Rows of one tensor in some dtype.
struct Rows {
  Rows(int64_t rows, int64_t heads, int64_t features, DType of)
      : dtype(of),
        shape{rows, heads, features},
        bytes(static_cast<size_t>(shape.elements()) * SizeOf(dtype), std::byte{0}) {}

  [[nodiscard]] TensorView view() { return {bytes.data(), dtype, shape}; }
  [[nodiscard]] double At(int64_t row, int64_t head, int64_t feature) {
    const int64_t i = (row * shape[1] + head) * shape[2] + feature;
    return Dispatch(
        dtype, [&](auto zero) { return static_cast<double>(static_cast<float>(view().As<decltype(zero)>()[i])); });
  }
  void Set(int64_t i, float value) {
    Dispatch(dtype, [&](auto zero) { view().As<decltype(zero)>()[i] = static_cast<decltype(zero)>(value); });
  }

  DType dtype;
  Shape shape;
  std::vector<std::byte> bytes;
};

/// Normal numbers of which a few features, the same of each head, are `outlier` times as large.
Rows Drawn(const Shape& shape, DType dtype, double outlier, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Rows rows(shape[0], shape[1], shape[2], dtype);
  for (int64_t i = 0; i < shape.elements(); ++i) {
    const bool large = i % shape[2] % 61 == 3;
    rows.Set(i, static_cast<float>(normal(random) * (large ? outlier : 1)));
  }
  return rows;
}

std::vector<std::byte> Encoded(const RowCodec& codec, Rows& rows, int64_t begin, double* bound = nullptr,
                               int threads = 1) {
  std::vector<std::byte> bytes(codec.Bytes(begin, begin + rows.shape[0]));
  const double largest = codec.Encode(rows.view(), begin, bytes, cpu::Team(threads));
  if (bound != nullptr) *bound = largest;
  return bytes;
}

Rows Decoded(const RowCodec& codec, const std::vector<std::byte>& bytes, int64_t begin, Rows& like, int threads = 1) {
  Rows rows(like.shape[0], like.shape[1], like.shape[2], like.dtype);
  EXPECT_TRUE(codec.Decode(bytes, begin, rows.view(), cpu::Team(threads)).ok());
  return rows;
}

/// The largest Euclidean distance between two heads.
double LargestDistance(Rows& a, Rows& b) {
  double largest = 0;
  for (int64_t row = 0; row < a.shape[0]; ++row) {
    for (int64_t head = 0; head < a.shape[1]; ++head) {
      double squares = 0;
      for (int64_t i = 0; i < a.shape[2]; ++i) squares += std::pow(a.At(row, head, i) - b.At(row, head, i), 2);
      largest = std::max(largest, std::sqrt(squares));
    }
  }
  return largest;
}

TEST(RowCodec, KeysAreWithinTheirBound) {
  unsigned seed = 0;
  for (const WireFormat format : kLossy) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (const int64_t features : {1, 7, 8, 10, 32, 64, 80, 96, 128, 192, 320}) {
        for (const double outlier : {1.0, 80.0}) {
          SCOPED_TRACE(std::string(Name(dtype)) + " " + std::to_string(features));
          Rows rows = Drawn({9, 3, features}, dtype, outlier, ++seed);
          const RowCodec codec(format, RowKind::kKeys, 3, features, dtype);
          double bound = 0;
          const std::vector<std::byte> bytes = Encoded(codec, rows, 100, &bound);
          Rows back = Decoded(codec, bytes, 100, rows);
          EXPECT_LE(LargestDistance(rows, back), bound);
          EXPECT_LT(bound, 0.2 * std::sqrt(static_cast<double>(features)) * 4 * outlier);
        }
      }
    }
  }
}

/// Of values each number's error is bounded: half a step of the group's scale, or 2^-4 of a number in e4m3.
TEST(RowCodec, ValuesAreWithinHalfAStep) {
  for (const WireFormat format : kLossy) {
    for (const int64_t features : {5, 32, 80, 128, 200}) {
      Rows rows = Drawn({6, 2, features}, DType::kF32, 1, 7);
      const RowCodec codec(format, RowKind::kValues, 2, features, DType::kF32);
      double bound = -1;
      Rows back = Decoded(codec, Encoded(codec, rows, 4, &bound), 4, rows);
      EXPECT_EQ(bound, 0);
      double largest = 0;
      double error = 0;
      for (int64_t row = 0; row < 6; ++row) {
        for (int64_t i = 0; i < 2 * features; ++i) {
          const double x = rows.At(row, 0, i);
          largest = std::max(largest, std::abs(x));
          error = std::max(error, std::abs(x - back.At(row, 0, i)));
        }
      }
      const double levels = format == WireFormat::kInt8 ? 254 : format == WireFormat::kInt4 ? 15 : 16;
      EXPECT_LE(error, largest / levels * (1 + 0x1p-6)) << features;
      EXPECT_GT(error, 0);
    }
  }
}

TEST(RowCodec, MixingSpreadsLargeFeatures) {
  for (const WireFormat format : {WireFormat::kInt8, WireFormat::kInt4}) {
    Rows rows = Drawn({64, 2, 128}, DType::kBF16, 80, 11);
    const RowCodec mixed(format, RowKind::kKeys, 2, 128, DType::kBF16);
    const RowCodec plain(format, RowKind::kValues, 2, 128, DType::kBF16);
    const auto small_features = [&](const RowCodec& codec) {  // mean squared error of those that are not large
      Rows back = Decoded(codec, Encoded(codec, rows, 4), 4, rows);
      double squares = 0;
      for (int64_t row = 0; row < 64; ++row) {
        for (int64_t i = 8; i < 32; ++i) squares += std::pow(rows.At(row, 0, i) - back.At(row, 0, i), 2);
      }
      return squares;
    };
    EXPECT_LT(small_features(mixed), 0.7 * small_features(plain));
  }
}

TEST(RowCodec, APartOfEncodedRowsIsTheEncodingOfThePart) {
  for (const WireFormat format : {WireFormat::kExact, WireFormat::kInt8, WireFormat::kFp8, WireFormat::kInt4}) {
    const RowCodec codec(format, RowKind::kKeys, 3, 40, DType::kBF16);
    Rows all = Drawn({20, 3, 40}, DType::kBF16, 9, 5);
    const std::vector<std::byte> whole = Encoded(codec, all, 0);
    EXPECT_EQ(Encoded(codec, all, 0, nullptr, 3), whole);
    for (const auto& [begin, end] : {std::pair{0, 3}, {2, 9}, {4, 5}, {11, 20}, {7, 7}}) {
      const size_t row_bytes = all.bytes.size() / 20;
      Rows part(end - begin, 3, 40, DType::kBF16);
      std::memcpy(part.bytes.data(), all.bytes.data() + row_bytes * static_cast<size_t>(begin), part.bytes.size());
      const std::vector<std::byte> bytes = Encoded(codec, part, begin);
      const size_t at = codec.Bytes(0, begin);
      ASSERT_EQ(bytes.size() + at + codec.Bytes(end, 20), whole.size());
      EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), whole.begin() + static_cast<int64_t>(at)));
      Rows back = Decoded(codec, bytes, begin, part);
      Rows threads = Decoded(codec, bytes, begin, part, 4);
      EXPECT_EQ(back.bytes, threads.bytes);
      const auto exact = static_cast<size_t>(format == WireFormat::kExact
                                                 ? end - begin
                                                 : std::clamp<int64_t>(RowCodec::kExactRows - begin, 0, end - begin));
      EXPECT_TRUE(std::equal(back.bytes.begin(), back.bytes.begin() + static_cast<int64_t>(exact * row_bytes),
                             part.bytes.begin()));
    }
  }
}

TEST(RowCodec, BytesOfEachFormat) {
  const auto bytes_of = [](WireFormat format) {
    return RowCodec(format, RowKind::kValues, 8, 128, DType::kBF16).Bytes(10, 11);
  };
  EXPECT_EQ(bytes_of(WireFormat::kExact), 2048U);
  EXPECT_EQ(bytes_of(WireFormat::kInt8), 8 * (128 + 2U));
  EXPECT_EQ(bytes_of(WireFormat::kFp8), 8 * (128 + 2U));
  EXPECT_EQ(bytes_of(WireFormat::kInt4), 8 * (64 + 4 * 2U));
}

TEST(RowCodec, WrongSizesAreRefused) {
  Rows rows = Drawn({5, 2, 16}, DType::kF32, 1, 3);
  const RowCodec codec(WireFormat::kInt4, RowKind::kKeys, 2, 16, DType::kF32);
  const std::vector<std::byte> bytes = Encoded(codec, rows, 4);
  for (const size_t size : {size_t{0}, size_t{1}, bytes.size() - 1, bytes.size() + 1, 4 * bytes.size()}) {
    std::vector<std::byte> wrong = bytes;
    wrong.resize(size);
    Rows back(5, 2, 16, DType::kF32);
    const Status status = codec.Decode(wrong, 4, back.view(), cpu::Team(1));
    EXPECT_EQ(status.message(), "encoded rows [4, 9): expected " + std::to_string(bytes.size()) + " bytes, got " +
                                    std::to_string(size));
    EXPECT_EQ(back.bytes, Rows(5, 2, 16, DType::kF32).bytes);
  }
}

TEST(RowCodec, AnyBytesDecode) {
  std::mt19937 random(17);
  for (const WireFormat format : kLossy) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      Rows rows(6, 2, 72, dtype);
      const RowCodec codec(format, RowKind::kKeys, 2, 72, dtype);
      std::vector<std::byte> bytes(codec.Bytes(2, 8));
      for (int round = 0; round < 50; ++round) {
        for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
        EXPECT_TRUE(codec.Decode(bytes, 2, rows.view(), cpu::Team(2)).ok());
      }
    }
  }
}

TEST(RowCodec, WhatIsNotFiniteStaysSo) {
  for (const WireFormat format : kLossy) {
    for (const float wrong : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(),
                              -std::numeric_limits<float>::quiet_NaN()}) {
      Rows rows = Drawn({3, 2, 32}, DType::kBF16, 1, 3);
      rows.Set(32 * 2 + 5, wrong);  // row 1, head 0
      const RowCodec codec(format, RowKind::kKeys, 2, 32, DType::kBF16);
      double bound = 0;
      Rows back = Decoded(codec, Encoded(codec, rows, 8, &bound), 8, rows);
      EXPECT_TRUE(std::isinf(bound));
      for (int64_t i = 0; i < 32; ++i) {
        EXPECT_TRUE(std::isnan(back.At(1, 0, i)));
        EXPECT_TRUE(std::isfinite(back.At(1, 1, i)) && std::isfinite(back.At(0, 0, i)));
      }
    }
  }
}

TEST(RowCodec, ZerosStayZeros) {
  for (const WireFormat format : kLossy) {
    Rows rows(3, 2, 48, DType::kBF16);
    const RowCodec codec(format, RowKind::kKeys, 2, 48, DType::kBF16);
    Rows back = Decoded(codec, Encoded(codec, rows, 8), 8, rows);
    EXPECT_EQ(back.bytes, rows.bytes);
  }
}

}  // namespace
}  // namespace runahead
