// Draws a token from logits.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runahead/generate.h"

namespace runahead {

inline constexpr const char* kNotANumberInLogits =
    "the model's logits hold a NaN: its weights or its dtype cannot be right";

/// The id of the largest of `logits` [vocab], of equal ones the lowest. Throws DeviceError when they hold a NaN.
int32_t LikeliestToken(std::span<const float> logits);

/// Greedy, or temperature with top-k, top-p and min-p, after penalties. The same seed gives the same draws on every
/// platform. Not thread-safe.
class Sampler {
 public:
  using Bias = std::vector<std::pair<int32_t, float>>;  // token id, and what is added to its logit

  /// Throws ConfigError naming an option out of range. `bias`: ids below the vocabulary.
  explicit Sampler(const SamplingOptions& options, Bias bias = {});

  /// Whether logits are changed before the choice, so that the likeliest token is not always chosen.
  [[nodiscard]] bool Penalizes() const;
  /// Tokens for penalties: those of the prompt, and each that was drawn. All below the vocabulary.
  void SeePrompt(std::span<const int32_t> prompt);
  void SeeDrawn(int32_t token);
  /// `token` was drawn by another sampler of the same options: draws go on behind it.
  void Resume(int32_t token);

  /// The id drawn from `logits` [vocab]; of equal logits the lowest id is preferred. Throws DeviceError when the
  /// logits hold a NaN.
  int32_t Draw(std::span<const float> logits);

 private:
  /// `logits` with the bias and the penalties of the tokens seen; valid until the next call.
  std::span<const float> Penalized(std::span<const float> logits);
  /// The likeliest ids, best first, with their unnormalised probabilities: what top-k, top-p and min-p leave.
  void Shortlist(std::span<const float> logits);

  SamplingOptions options_;
  Bias bias_;
  std::mt19937_64 random_;
  std::vector<int32_t> ids_;
  std::vector<double> weights_;
  std::unordered_map<int32_t, int> drawn_;  // how often each token seen was drawn; 0: in the prompt alone
  std::vector<float> penalized_;            // [vocab]
};

}  // namespace runahead
