// The formats in which weights of matrices are kept, and what they take.
//
// int8: code * scale, with a scale for each output feature and block of 256 input features.
// int4: (step * code + zero) * scale, with codes from 0 to 15, a step and a zero, whole numbers, for each output
// feature and group of 32 input features, and scales as in int8. step * code + zero is an int8 as well, so that both
// formats are multiplied as integers (Lin et al. 2024: QServe's progressive quantisation). Activations become int8
// with a scale for each row and block. CPUs have both.
// fp8: number * scale, with e4m3 numbers (4 bits of exponent, 3 of mantissa, up to 448) and a scale for each output
// feature. Many rows of activations become e4m3 too, with a scale for each row; few stay as they are. GPUs have it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "tensor/dtype.h"

namespace runahead {

/// kStored: as the files have them, in a dtype that the device multiplies.
enum class WeightFormat : uint8_t { kStored, kInt8, kInt4, kFp8 };

/// "stored", "int8", "int4", "fp8".
std::string_view Name(WeightFormat format);
/// The inverse of Name; nothing when `name` is none of them.
std::optional<WeightFormat> ParseWeightFormat(std::string_view name);
/// All names, for messages.
inline constexpr std::string_view kWeightFormatNames = "stored, int8, int4, fp8";

/// The format of the output head beside layers in `layers`: int8 beside integers, else as stored, since an error of
/// the head is one of every logit.
constexpr WeightFormat HeadFormat(WeightFormat layers) {
  return layers == WeightFormat::kInt8 || layers == WeightFormat::kInt4 ? WeightFormat::kInt8 : WeightFormat::kStored;
}

constexpr int64_t kBlockDepth = 256;    // input features that share a scale
constexpr int64_t kGroupDepth = 32;     // input features that share a step and a zero
constexpr int64_t kDepthMultiple = 64;  // input features are padded with zeros to a multiple
constexpr int64_t kFp8Multiple = 16;    // input features of weights in fp8 are a multiple

/// The format of matrices of `depth` input features where `asked` is asked for: fp8 is not for all.
constexpr WeightFormat FormatFor(WeightFormat asked, int64_t depth) {
  return asked == WeightFormat::kFp8 && depth % kFp8Multiple != 0 ? WeightFormat::kStored : asked;
}

/// Bytes of a row of `depth` quantised weights, of which `format` is for.
constexpr size_t QuantisedRowBytes(WeightFormat format, int64_t depth) {
  if (format == WeightFormat::kFp8) return static_cast<size_t>(depth) + sizeof(float);
  const int64_t padded = (depth + kDepthMultiple - 1) / kDepthMultiple * kDepthMultiple;
  const int64_t scales = 4 * ((depth + kBlockDepth - 1) / kBlockDepth);
  const int64_t codes = format == WeightFormat::kInt4 ? padded / 2 + padded / kGroupDepth * 2 : padded;
  return static_cast<size_t>(codes + scales);
}

/// Bytes of a weight among many; `stored`: the dtype that the device keeps weights of kStored in.
constexpr double BytesPerWeight(WeightFormat format, DType stored) {
  if (format == WeightFormat::kStored) return static_cast<double>(SizeOf(stored));
  if (format == WeightFormat::kFp8) return 1;
  return static_cast<double>(QuantisedRowBytes(format, kBlockDepth)) / static_cast<double>(kBlockDepth);
}

}  // namespace runahead
