// Vectors of f32 loaded from, and stored to, tensors of any dtype; fast exponentials. Compiled once per target.
#if defined(RUNAHEAD_OPS_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RUNAHEAD_OPS_CPU_SIMD_INL_H_
#undef RUNAHEAD_OPS_CPU_SIMD_INL_H_
#else
#define RUNAHEAD_OPS_CPU_SIMD_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace runahead::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using FloatVec = hn::Vec<FloatTag>;

HWY_INLINE FloatVec LoadFloats(FloatTag d, const float* from) { return hn::LoadU(d, from); }

HWY_INLINE FloatVec LoadFloats(FloatTag d, const BFloat16* from) {
  const hn::Rebind<uint16_t, FloatTag> d16;
  const hn::RebindToUnsigned<FloatTag> d32;
  const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from)));
  return hn::BitCast(d, hn::ShiftLeft<16>(bits));
}

HWY_INLINE FloatVec LoadFloats(FloatTag d, const Float16* from) {
  const hn::Rebind<hwy::float16_t, FloatTag> d16;
  return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(from)));
}

HWY_INLINE void StoreFloats(FloatTag d, FloatVec value, float* to) { hn::StoreU(value, d, to); }

/// Rounds to nearest even and keeps NaN.
HWY_INLINE void StoreFloats([[maybe_unused]] FloatTag d, FloatVec value, BFloat16* to) {
  const hn::Rebind<uint16_t, FloatTag> d16;
  const hn::RebindToUnsigned<FloatTag> d32;
  const hn::RebindToSigned<FloatTag> di32;
  const auto bits = hn::BitCast(d32, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(d32, 0x7fffu)), odd));
  const auto kept = hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(value)),
                                   hn::Or(hn::ShiftRight<16>(bits), hn::Set(d32, 0x40u)), rounded);
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di32, kept)), d16, reinterpret_cast<uint16_t*>(to));
}

HWY_INLINE void StoreFloats([[maybe_unused]] FloatTag d, FloatVec value, Float16* to) {
  const hn::Rebind<hwy::float16_t, FloatTag> d16;
  hn::StoreU(hn::DemoteTo(d16, value), d16, reinterpret_cast<hwy::float16_t*>(to));
}

/// The first n < Lanes elements, and zeros.
template <typename T>
HWY_INLINE FloatVec LoadFloatsN(FloatTag d, const T* from, size_t n) {
  HWY_ALIGN T buffer[HWY_MAX_BYTES / sizeof(float)] = {};
  for (size_t i = 0; i < n; ++i) buffer[i] = from[i];
  return LoadFloats(d, buffer);
}

/// Stores only the first n < Lanes elements.
template <typename T>
HWY_INLINE void StoreFloatsN(FloatTag d, FloatVec value, T* to, size_t n) {
  HWY_ALIGN T buffer[HWY_MAX_BYTES / sizeof(float)];
  StoreFloats(d, value, buffer);
  for (size_t i = 0; i < n; ++i) to[i] = buffer[i];
}

template <size_t kRows, size_t kVectors>
HWY_INLINE void SetZero(FloatTag d, FloatVec (&sums)[kRows][kVectors]) {
#pragma GCC unroll 8
  for (size_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (size_t v = 0; v < kVectors; ++v) sums[i][v] = hn::Zero(d);
  }
}

/// Calls body(i, load, store) for vectors that cover [0, n): load(p) reads p[i..], store(v, p) writes p[i..], both
/// only what lies before n. Read all, then write: the ranges may be the same memory.
template <typename Body>
HWY_INLINE void ForVectors(FloatTag d, size_t n, const Body& body) {
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    body([&](const auto* from) HWY_ATTR { return LoadFloats(d, from + i); },
         [&](FloatVec value, auto* to) HWY_ATTR { StoreFloats(d, value, to + i); });
  }
  if (i < n) {
    body([&](const auto* from) HWY_ATTR { return LoadFloatsN(d, from + i, n - i); },
         [&](FloatVec value, auto* to) HWY_ATTR { StoreFloatsN(d, value, to + i, n - i); });
  }
}

/// e^x to a relative error of 2e-7; 0 below -87.33, infinity above 88.37. (Cephes' expf: a polynomial of the argument
/// that is left after removing the power of two.)
template <class D>
HWY_INLINE hn::Vec<D> Exp(D d, hn::Vec<D> x) {
  const hn::RebindToSigned<D> di;
  const auto clamped = hn::Min(hn::Max(x, hn::Set(d, -87.33f)), hn::Set(d, 88.37f));
  const auto n = hn::Round(hn::Mul(clamped, hn::Set(d, 1.44269504088896341f)));
  auto r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), clamped);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  auto p = hn::Set(d, 1.9875691500e-4f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(hn::Mul(p, r), r, r), hn::Set(d, 1.0f));
  const auto scale = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127))));
  const auto finite = hn::IfThenElse(hn::Gt(x, hn::Set(d, 88.37f)), hn::Inf(d), hn::Mul(p, scale));
  return hn::IfThenElse(hn::Lt(x, hn::Set(d, -87.33f)), hn::Zero(d), finite);
}

/// 2^x for x <= 0 to a relative error of 2e-7, and 0 from -127 down. (Minimax polynomial of degree 5 on [-1/2, 1/2].)
template <class D>
HWY_INLINE hn::Vec<D> Exp2(D d, hn::Vec<D> x) {
  const hn::RebindToSigned<D> di;
  const auto clamped = hn::Max(hn::Set(d, -127.0f), x);  // x86 keeps the second of two where one is NaN
  const auto shifter = hn::Set(d, 12582912.0f);          // adding 1.5 * 2^23 rounds to an integer, in the low bits
  const auto shifted = hn::Add(clamped, shifter);
  const auto r = hn::Sub(clamped, hn::Sub(shifted, shifter));
  auto p = hn::Set(d, 0.0013264727189281425f);
  p = hn::MulAdd(p, r, hn::Set(d, 0.009671512644279928f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.05550733743273338f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.240222420852742f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.6931469775991596f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  return hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
}

/// tanh(x) to an absolute error of 3e-7.
template <class D>
HWY_INLINE hn::Vec<D> Tanh(D d, hn::Vec<D> x) {
  const auto e = Exp(d, hn::Add(x, x));
  return hn::Sub(hn::Set(d, 1.0f), hn::Div(hn::Set(d, 2.0f), hn::Add(e, hn::Set(d, 1.0f))));
}

}  // namespace runahead::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
