#include "codec/head_kernels.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/head_kernels.cc"
#include <hwy/foreach_target.h>

#include "base/check.h"
#include "ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace runahead::cpu::HWY_NAMESPACE {

using IntTag = hn::RebindToSigned<FloatTag>;

constexpr int32_t kInfinity = 0x7f800000;    // bits of an infinity: those of finite magnitudes are smaller
constexpr float kSmallestScale = 0x1p-100f;  // groups with a smaller scale are zeros
constexpr float kLargestFp8 = 448;           // of e4m3: 1.75 * 2^8
constexpr float kInt4Middle = 7.5f;          // codes 0 to 15 mean -7.5 to 7.5

/// A piece of a head in f32, with zeros up to a whole vector.
struct Piece {
  HWY_ALIGN float values[kPieceFeatures];
};

int64_t Lanes() { return static_cast<int64_t>(hn::Lanes(FloatTag())); }
int64_t WholeVectors(int64_t n) { return (n + Lanes() - 1) / Lanes() * Lanes(); }

// ---- The Hadamard transform, not normalised -------------------------------------------------------------------

/// Sums and differences of the lanes of `v` whose numbers differ in the bit `kStride`, which `swapped` exchanges.
template <int32_t kStride>
HWY_INLINE FloatVec InLanes(FloatTag d, FloatVec v, FloatVec swapped) {
  const IntTag di;
  const auto bit = hn::And(hn::Iota(di, 0), hn::Set(di, kStride));
  const auto sign = hn::IfThenElseZero(hn::Eq(bit, hn::Set(di, kStride)), hn::Set(di, INT32_MIN));
  return hn::Add(hn::Xor(v, hn::BitCast(d, sign)), swapped);
}

/// Mixes the numbers of one vector, in blocks of at most `mixed`.
HWY_INLINE FloatVec MixLanes([[maybe_unused]] FloatTag d, FloatVec v, [[maybe_unused]] int64_t mixed) {
#if HWY_TARGET != HWY_SCALAR
  constexpr size_t kLanes = hn::MaxLanes(FloatTag());
  if (mixed >= 2) v = InLanes<1>(d, v, hn::Reverse2(d, v));
  if (mixed >= 4) v = InLanes<2>(d, v, hn::Shuffle1032(v));
  if constexpr (kLanes == 8) {
    if (mixed >= 8) v = InLanes<4>(d, v, hn::ConcatLowerUpper(d, v, v));
  }
  if constexpr (kLanes == 16) {
    if (mixed >= 8) v = InLanes<4>(d, v, hn::SwapAdjacentBlocks(v));
    if (mixed >= 16) v = InLanes<8>(d, v, hn::ConcatLowerUpper(d, v, v));
  }
#endif
  return v;
}

/// Mixes vectors, which are mixed in themselves, over blocks of `mixed` of `n` numbers.
HWY_INLINE void MixVectors(float* values, int64_t n, int64_t mixed) {
  const FloatTag d;
  for (int64_t stride = Lanes(); stride < mixed; stride *= 2) {
    for (int64_t block = 0; block < n; block += 2 * stride) {
      for (int64_t i = block; i < block + stride; i += Lanes()) {
        const auto a = hn::Load(d, values + i);
        const auto b = hn::Load(d, values + i + stride);
        hn::Store(hn::Add(a, b), d, values + i);
        hn::Store(hn::Sub(a, b), d, values + i + stride);
      }
    }
  }
}

// ---- Codes of one group ---------------------------------------------------------------------------------------

/// The bf16 at or above `scale`, which is finite and not negative.
HWY_INLINE float RoundedUp(float scale) {
  return std::bit_cast<float>((std::bit_cast<uint32_t>(scale) + 0xffffu) & 0xffff0000u);
}

template <class V>
HWY_INLINE auto Fp8Codes(V scaled) {
  const FloatTag d;
  const IntTag di;
  const auto sign = hn::And(hn::ShiftRight<24>(hn::BitCast(di, scaled)), hn::Set(di, 0x80));
  const auto magnitude = hn::Min(hn::Abs(scaled), hn::Set(d, kLargestFp8));
  const auto bits = hn::BitCast(di, magnitude);
  const auto odd = hn::And(hn::ShiftRight<20>(bits), hn::Set(di, 1));
  const auto rounded = hn::ShiftRight<20>(hn::Add(bits, hn::Add(odd, hn::Set(di, 0x7ffff))));
  const auto normal = hn::Sub(rounded, hn::Set(di, 120 << 3));  // exponents begin at 7 instead of 127
  const auto subnormal = hn::NearestInt(hn::Mul(magnitude, hn::Set(d, 0x1p9f)));
  const auto small = hn::RebindMask(di, hn::Lt(magnitude, hn::Set(d, 0x1p-6f)));
  return hn::Or(sign, hn::IfThenElse(small, subnormal, normal));
}

template <class V>
HWY_INLINE FloatVec Fp8Values(V codes) {
  const FloatTag d;
  const IntTag di;
  const auto sign = hn::ShiftLeft<24>(hn::And(codes, hn::Set(di, 0x80)));
  const auto magnitude = hn::And(codes, hn::Set(di, 0x7f));
  const auto normal = hn::BitCast(d, hn::Add(hn::ShiftLeft<20>(magnitude), hn::Set(di, 120 << 23)));
  const auto subnormal = hn::Mul(hn::ConvertTo(d, magnitude), hn::Set(d, 0x1p-9f));
  const auto small = hn::RebindMask(d, hn::Lt(magnitude, hn::Set(di, 8)));
  return hn::Or(hn::IfThenElse(small, subnormal, normal), hn::BitCast(d, sign));
}

/// What the largest code stands for, in units of a group's scale.
float LargestCode(WireFormat format) {
  return format == WireFormat::kInt8 ? 127.0f : format == WireFormat::kFp8 ? kLargestFp8 : kInt4Middle;
}

template <WireFormat kFormat>
HWY_INLINE void EncodeVector(FloatVec scaled, uint8_t* codes) {
  const FloatTag d;
  const IntTag di;
  const hn::Rebind<int8_t, FloatTag> d8;
  const hn::Rebind<uint8_t, FloatTag> du8;
  if constexpr (kFormat == WireFormat::kInt8) {
    hn::StoreU(hn::DemoteTo(d8, hn::NearestInt(scaled)), d8, reinterpret_cast<int8_t*>(codes));
  } else if constexpr (kFormat == WireFormat::kFp8) {
    hn::StoreU(hn::DemoteTo(du8, Fp8Codes(scaled)), du8, codes);
  } else {
    const auto code = hn::NearestInt(hn::Add(scaled, hn::Set(d, kInt4Middle)));
    hn::StoreU(hn::DemoteTo(du8, hn::Min(hn::Max(code, hn::Zero(di)), hn::Set(di, 15))), du8, codes);
  }
}

template <WireFormat kFormat>
HWY_INLINE FloatVec DecodeVector(const uint8_t* codes) {
  const FloatTag d;
  const IntTag di;
  const hn::Rebind<int8_t, FloatTag> d8;
  const hn::Rebind<uint8_t, FloatTag> du8;
  if constexpr (kFormat == WireFormat::kInt8) {
    return hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(d8, reinterpret_cast<const int8_t*>(codes))));
  } else if constexpr (kFormat == WireFormat::kFp8) {
    return Fp8Values(hn::PromoteTo(di, hn::LoadU(du8, codes)));
  } else {
    return hn::Sub(hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(du8, codes))), hn::Set(d, kInt4Middle));
  }
}

using HalfGroup = hn::CappedTag<uint8_t, 16>;

/// Codes of the first half in the lower bits of `half` bytes, of the second in the upper ones. A vector at a time
/// where it fits.
HWY_INLINE void JoinNibbles(const uint8_t* codes, int64_t half, uint8_t* to) {
  const HalfGroup d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= half; i += lanes) {
    hn::StoreU(hn::Or(hn::LoadU(d, codes + i), hn::ShiftLeft<4>(hn::LoadU(d, codes + half + i))), d, to + i);
  }
  for (; i < half; ++i) to[i] = static_cast<uint8_t>(codes[i] | codes[half + i] << 4);
}

HWY_INLINE void SplitNibbles(const uint8_t* from, int64_t half, uint8_t* codes) {
  const HalfGroup d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= half; i += lanes) {
    const auto both = hn::LoadU(d, from + i);
    hn::StoreU(hn::And(both, hn::Set(d, uint8_t{15})), d, codes + i);
    hn::StoreU(hn::ShiftRight<4>(both), d, codes + half + i);
  }
  for (; i < half; ++i) {
    codes[i] = from[i] & 15;
    codes[half + i] = from[i] >> 4;
  }
}

/// Bytes of `n` codes.
template <WireFormat kFormat>
constexpr int64_t CodeBytes(int64_t n) {
  return kFormat == WireFormat::kInt4 ? (n + 1) / 2 : n;
}

// ---- Heads ----------------------------------------------------------------------------------------------------

/// What the error bound of a head is made of.
struct HeadErrors {
  double squares = 0;  // sum of the squared numbers, as mixed
  double steps = 0;    // bound of the sum of the squared differences, as mixed
};

/// One group: its scale goes to `scale`, its codes to `to`, which it moves.
template <WireFormat kFormat>
HWY_INLINE void EncodeGroup(const float* values, int64_t n, bool bounds, std::byte* scale, uint8_t*& to,
                            HeadErrors& errors) {
  const FloatTag d;
  const IntTag di;
  auto largest_bits = hn::Zero(di);
  for (int64_t i = 0; i < n; i += Lanes()) {
    const auto bits = hn::BitCast(di, hn::Load(d, values + i));
    largest_bits = hn::Max(largest_bits, hn::And(bits, hn::Set(di, INT32_MAX)));
  }
  const int32_t largest = hn::GetLane(hn::MaxOfLanes(di, largest_bits));
  const bool finite = largest < kInfinity;
  const float step = finite ? RoundedUp(std::bit_cast<float>(largest) / LargestCode(kFormat))
                            : std::numeric_limits<float>::quiet_NaN();
  const bool zeros = step < kSmallestScale;
  const float inverse = finite && !zeros ? 1.0f / step : 0.0f;
  const auto stored = static_cast<uint16_t>(zeros ? 0 : std::bit_cast<uint32_t>(step) >> 16);
  std::memcpy(scale, &stored, sizeof stored);

  HWY_ALIGN uint8_t codes[kPieceFeatures + HWY_MAX_BYTES];
  const auto by = hn::Set(d, inverse);
  for (int64_t i = 0; i < n; i += Lanes()) {
    EncodeVector<kFormat>(hn::Mul(hn::Load(d, values + i), by), &codes[i]);
  }
  const int64_t bytes = CodeBytes<kFormat>(n);
  if constexpr (kFormat == WireFormat::kInt4) {
    codes[n] = 0;
    JoinNibbles(&codes[0], bytes, to);
  } else {
    std::memcpy(to, &codes[0], static_cast<size_t>(n));
  }
  to += bytes;
  if (!bounds) return;
  auto sums = hn::Zero(d);
  for (int64_t i = 0; i < n; i += Lanes()) {
    const auto value = hn::Load(d, values + i);
    sums = hn::Add(sums, hn::Mul(value, value));
  }
  const double squares = hn::GetLane(hn::SumOfLanes(d, sums));
  errors.squares += squares;
  if (zeros) {
    errors.steps += squares;
  } else if (kFormat == WireFormat::kFp8) {  // 3 bits behind the point, or steps of 2^-9 below 2^-6
    const double root = 0x1p-4 * std::sqrt(squares) + 0x1p-10 * step * std::sqrt(static_cast<double>(n));
    errors.steps += root * root;
  } else {
    errors.steps += static_cast<double>(n) * (0.5 * step) * (0.5 * step);
  }
}

/// The bound of EncodeHeads, of one head.
HWY_INLINE double BoundOf(const HeadErrors& errors, const HeadCoding& coding) {
  constexpr double kOfStep = 0x1p-14;  // roundings of a scale's inverse and of a number times it, in steps
  constexpr double kOfSum = 0x1p-16;   // f32's own roundings in sums of at most 128 numbers
  const bool half = coding.dtype == DType::kF16;
  const auto mixed = static_cast<double>(coding.mixed);
  const double error = (1 + kOfStep) * std::sqrt(errors.steps / mixed);
  const double length = (1 + kOfSum) * std::sqrt(errors.squares / mixed) + error;
  if (!(length < (half ? 65504.0 : 0x1p100))) return std::numeric_limits<double>::infinity();
  const double smallest = half ? 0x1p-25 : 0x1p-126;  // half a step between subnormal numbers
  return error + (UnitRoundoff(coding.dtype) + kOfSum) * length +
         smallest * std::sqrt(static_cast<double>(coding.features));
}

template <WireFormat kFormat, typename T>
double EncodeAll(const HeadCoding& coding, const T* from, int64_t count, std::byte* to) {
  const FloatTag d;
  double largest = 0;
  for (int64_t head = 0; head < count; ++head, from += coding.features, to += coding.head_bytes) {
    HeadErrors errors;
    to[coding.head_bytes - 1] = std::byte{0};  // where codes end before
    std::byte* at = to;
    for (int64_t first = 0; first < coding.features; first += kPieceFeatures) {
      const int64_t n = std::min(kPieceFeatures, coding.features - first);
      Piece piece;
      int64_t i = 0;
      for (; i + Lanes() <= n; i += Lanes()) {
        hn::Store(MixLanes(d, LoadFloats(d, from + first + i), coding.mixed), d, piece.values + i);
      }
      if (i < n) {
        const auto rest = LoadFloatsN(d, from + first + i, static_cast<size_t>(n - i));
        hn::Store(MixLanes(d, rest, coding.mixed), d, piece.values + i);
      }
      MixVectors(piece.values, n, coding.mixed);
      const int64_t groups = (n + coding.group - 1) / coding.group;
      auto* codes = reinterpret_cast<uint8_t*>(at + 2 * groups);
      for (int64_t group = 0; group < groups; ++group) {
        const int64_t begin = group * coding.group;
        EncodeGroup<kFormat>(piece.values + begin, std::min(coding.group, n - begin), coding.bounds, at + 2 * group,
                             codes, errors);
      }
      at = reinterpret_cast<std::byte*>(codes);
    }
    if (coding.bounds) largest = std::max(largest, BoundOf(errors, coding));
  }
  return largest;
}

template <WireFormat kFormat>
HWY_INLINE void DecodeGroup(const std::byte* scale, int64_t n, const uint8_t*& from, float factor, int64_t mixed,
                            float* values) {
  const FloatTag d;
  uint16_t bits = 0;
  std::memcpy(&bits, scale, sizeof bits);
  const auto step = hn::Set(d, factor * std::bit_cast<float>(static_cast<uint32_t>(bits) << 16));
  HWY_ALIGN uint8_t codes[kPieceFeatures + HWY_MAX_BYTES];
  const int64_t bytes = CodeBytes<kFormat>(n);
  if constexpr (kFormat == WireFormat::kInt4) {
    SplitNibbles(from, bytes, &codes[0]);
  } else {
    std::memcpy(&codes[0], from, static_cast<size_t>(n));
  }
  from += bytes;
  for (int64_t i = 0; i < n; i += Lanes()) {
    hn::Store(MixLanes(d, hn::Mul(DecodeVector<kFormat>(&codes[i]), step), mixed), d, values + i);
  }
}

template <WireFormat kFormat, typename T>
void DecodeAll(const HeadCoding& coding, const std::byte* from, int64_t count, T* to) {
  const FloatTag d;
  const float factor = 1.0f / static_cast<float>(coding.mixed);
  for (int64_t head = 0; head < count; ++head, to += coding.features, from += coding.head_bytes) {
    const std::byte* at = from;
    for (int64_t first = 0; first < coding.features; first += kPieceFeatures) {
      const int64_t n = std::min(kPieceFeatures, coding.features - first);
      Piece piece;
      const int64_t groups = (n + coding.group - 1) / coding.group;
      const auto* codes = reinterpret_cast<const uint8_t*>(at + 2 * groups);
      for (int64_t group = 0; group < groups; ++group) {
        const int64_t begin = group * coding.group;
        DecodeGroup<kFormat>(at + 2 * group, std::min(coding.group, n - begin), codes, factor, coding.mixed,
                             piece.values + begin);
      }
      at = reinterpret_cast<const std::byte*>(codes);
      MixVectors(piece.values, n, coding.mixed);
      ForVectors(d, static_cast<size_t>(n),
                 [&](auto load, auto store) HWY_ATTR { store(load(&piece.values[0]), to + first); });
    }
  }
}

/// Calls run(format, zero of the element type), the format as a type.
template <typename Run>
HWY_INLINE void ForKind(const HeadCoding& coding, const Run& run) {
  Dispatch(coding.dtype, [&](auto zero) HWY_ATTR {
    switch (coding.format) {
      case WireFormat::kInt8:
        return run(std::integral_constant<WireFormat, WireFormat::kInt8>(), zero);
      case WireFormat::kFp8:
        return run(std::integral_constant<WireFormat, WireFormat::kFp8>(), zero);
      case WireFormat::kInt4:
        return run(std::integral_constant<WireFormat, WireFormat::kInt4>(), zero);
      case WireFormat::kExact:
        break;
    }
    internal::CheckFailed(__FILE__, __LINE__, "no format of quantised rows");
  });
}

void Encode(const HeadCoding& coding, const void* from, int64_t count, std::byte* to, double* bound) {
  ForKind(coding, [&](auto format, auto zero) HWY_ATTR {
    *bound = EncodeAll<decltype(format)::value>(coding, static_cast<const decltype(zero)*>(from), count, to);
  });
}

void Decode(const HeadCoding& coding, const std::byte* from, int64_t count, void* to) {
  ForKind(coding, [&](auto format, auto zero) HWY_ATTR {
    DecodeAll<decltype(format)::value>(coding, from, count, static_cast<decltype(zero)*>(to));
  });
}

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace runahead::cpu {
HWY_EXPORT(Encode);
HWY_EXPORT(Decode);

double EncodeHeads(const HeadCoding& coding, const void* from, int64_t count, std::byte* to) {
  double bound = 0;
  HWY_DYNAMIC_DISPATCH(Encode)(coding, from, count, to, &bound);
  return bound;
}

void DecodeHeads(const HeadCoding& coding, const std::byte* from, int64_t count, void* to) {
  HWY_DYNAMIC_DISPATCH(Decode)(coding, from, count, to);
}

}  // namespace runahead::cpu
#endif  // HWY_ONCE
