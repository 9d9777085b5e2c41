// Activations of single numbers.
#pragma once

#include <cuda_runtime.h>

#include "ops/ops.h"

namespace runahead::cuda {

/// A product that 16-bit results cannot tell from a division.
__device__ inline float Sigmoid(float x, float /*f32*/) { return 1.0f / (1.0f + expf(-x)); }
template <typename T>
__device__ float Sigmoid(float x, T /*16 bits*/) {
  return __fdividef(1.0f, 1.0f + __expf(-x));
}

/// erfc(x); for 16-bit results t exp(-x^2 + p(t)) with t = 1 / (1 + |x| / 2) and p a Chebyshev fit, off by less than
/// one part in 100,000 however small the result.
__device__ inline float Erfc(float x, float /*f32*/) { return erfcf(x); }
template <typename T>
__device__ float Erfc(float x, T /*16 bits*/) {
  const float t = __fdividef(1.0f, 1.0f + 0.5f * fabsf(x));
  float fit = 0.229882461f;
  fit = fit * t - 0.712653445f;
  fit = fit * t + 0.478670809f;
  fit = fit * t + 0.252072201f;
  fit = fit * t + 1.01863748f;
  fit = fit * t - 1.26660159f;
  const float tail = t * __expf(fit - x * x);
  return x < 0 ? 2.0f - tail : tail;
}

/// The activation of x, for results of type T.
template <Activation kActivation, typename T>
__device__ float Apply(float x) {
  if constexpr (kActivation == Activation::kSilu) {
    return x * Sigmoid(x, T{});
  } else if constexpr (kActivation == Activation::kGelu) {
    return 0.5f * x * Erfc(-0.70710678118654752f * x, T{});
  } else if constexpr (kActivation == Activation::kRelu) {
    return x < 0 ? 0.0f : x;  // what is no number stays none
  } else if constexpr (kActivation == Activation::kReluSquared) {
    return x < 0 ? 0.0f : x * x;
  } else {
    // 0.5 (1 + tanh u) = sigmoid(2 u), which does not cancel; 2 sqrt(2 / pi) = 1.5957691.
    return x * Sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x), T{});
  }
}

/// The same for an activation known at run time.
template <typename T>
__device__ float Apply(Activation activation, float x) {
  switch (activation) {
    case Activation::kSilu:
      return Apply<Activation::kSilu, T>(x);
    case Activation::kGelu:
      return Apply<Activation::kGelu, T>(x);
    case Activation::kGeluTanh:
      return Apply<Activation::kGeluTanh, T>(x);
    case Activation::kRelu:
      return Apply<Activation::kRelu, T>(x);
    case Activation::kReluSquared:
      return Apply<Activation::kReluSquared, T>(x);
  }
  return x;
}

}  // namespace runahead::cuda
