// Element types of tensors, and the 16-bit floats as C++ scalars.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

#include "base/check.h"

namespace runahead {

enum class DType : uint8_t { kF32, kBF16, kF16 };

/// Bytes of one element.
constexpr size_t SizeOf(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

/// "f32", "bf16", "f16".
std::string_view Name(DType dtype);
/// The inverse of Name; nothing when `name` is none of them.
std::optional<DType> ParseDType(std::string_view name);

/// Unit round-off: the largest relative error of rounding a real number to the type.
double UnitRoundoff(DType dtype);

/// The upper half of a float. Conversion rounds to nearest even and keeps NaN.
struct BFloat16 {
  uint16_t bits = 0;

  BFloat16() = default;
  explicit BFloat16(float value) {
    const auto wide = std::bit_cast<uint32_t>(value);
    const bool nan = (wide & 0x7fffffffu) > 0x7f800000u;
    bits = nan ? static_cast<uint16_t>((wide >> 16) | 0x40)
               : static_cast<uint16_t>((wide + 0x7fff + ((wide >> 16) & 1)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

/// IEEE binary16. Conversion rounds to nearest even; values beyond 65504 become infinite.
struct Float16 {
  uint16_t bits = 0;

  Float16() = default;
  explicit Float16(float value) : bits(Round(value)) {}
  explicit operator float() const;

 private:
  static uint16_t Round(float value);
};

/// Calls `function` with a zero of the C++ type of `dtype`: the one place where element types become templates.
template <typename Function>
decltype(auto) Dispatch(DType dtype, Function&& function) {
  switch (dtype) {
    case DType::kF32:
      return function(float{});
    case DType::kBF16:
      return function(BFloat16{});
    case DType::kF16:
      return function(Float16{});
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown dtype");
}

template <typename T>
constexpr DType kDTypeOf = std::is_same_v<T, float>      ? DType::kF32
                           : std::is_same_v<T, BFloat16> ? DType::kBF16
                                                         : DType::kF16;

}  // namespace runahead
