// Draws a token from logits.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "runahead/generate.h"

namespace runahead {

inline constexpr const char* kNotANumberInLogits =
    "the model's logits hold a NaN: its weights or its dtype cannot be right";

/// The id of the largest of `logits` [vocab], of equal ones the lowest. Throws DeviceError when they hold a NaN.
int32_t LikeliestToken(std::span<const float> logits);

/// Greedy, or temperature with top-k and top-p. The same seed gives the same draws on every platform. Not
/// thread-safe.
class Sampler {
 public:
  /// Throws ConfigError naming an option out of range.
  explicit Sampler(const SamplingOptions& options);

  /// The id drawn from `logits` [vocab]; of equal logits the lowest id is preferred. Throws DeviceError when the
  /// logits hold a NaN.
  int32_t Draw(std::span<const float> logits);

 private:
  /// The likeliest ids, best first, with their unnormalised probabilities: what top-k and top-p leave.
  void Shortlist(std::span<const float> logits);

  SamplingOptions options_;
  std::mt19937_64 random_;
  std::vector<int32_t> ids_;
  std::vector<double> weights_;
};

}  // namespace runahead
