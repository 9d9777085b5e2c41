// Softmax over keys that come piece by piece, in powers of two.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

namespace runahead::cuda {

constexpr float kLog2E = 1.4426950408889634f;

/// The weight factor of what was summed up under `before` when the largest score is `now`.
__device__ inline float Rescale(float before, float now) { return before == -INFINITY ? 0.0f : exp2f(before - now); }

/// The sum of a head's weights under its largest score (base 2), with the weight of its sink. sink: a score (base e),
/// or null: none.
__device__ inline float WithSink(float sum, const float* sink, float largest) {
  return sink == nullptr ? sum : sum + exp2f(*sink * kLog2E - largest);
}
/// The sink of a head, or null. sinks: [q_heads], or null.
__device__ inline const float* SinkOf(const float* sinks, int64_t head) {
  return sinks == nullptr ? nullptr : sinks + head;
}

}  // namespace runahead::cuda
