#include "worker/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "runahead/error.h"

namespace runahead {
namespace {

/// The largest logit, in lanes that a compiler can keep in vectors. No NaN among them.
float Largest(std::span<const float> logits) {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> largest;
  largest.fill(-INFINITY);
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      largest[lane] = logits[i + lane] > largest[lane] ? logits[i + lane] : largest[lane];
    }
  }
  for (; i < logits.size(); ++i) largest[0] = std::max(largest[0], logits[i]);
  return *std::max_element(largest.begin(), largest.end());
}

void CheckNumbers(std::span<const float> logits) {
  if (std::any_of(logits.begin(), logits.end(), [](float x) { return std::isnan(x); })) {
    throw DeviceError(kNotANumberInLogits);
  }
}

void CheckPenalty(const char* name, double penalty) {
  if (!(penalty >= -2 && penalty <= 2)) {
    throw ConfigError(fmt::format("{} penalty: expected a number from -2 to 2, got {}", name, penalty));
  }
}

}  // namespace

int32_t LikeliestToken(std::span<const float> logits) {
  CheckNumbers(logits);
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), Largest(logits)) - logits.begin());
}

Sampler::Sampler(const SamplingOptions& options, Bias bias)
    : options_(options), bias_(std::move(bias)), random_(options.seed) {
  if (!std::isfinite(options.temperature) || options.temperature < 0) {
    throw ConfigError(fmt::format("temperature: expected 0 or more, got {}", options.temperature));
  }
  if (options.top_k < 0) throw ConfigError(fmt::format("top-k: expected 0 or more, got {}", options.top_k));
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    throw ConfigError(fmt::format("top-p: expected a number above 0 and up to 1, got {}", options.top_p));
  }
  if (!(options.min_p >= 0 && options.min_p <= 1)) {
    throw ConfigError(fmt::format("min-p: expected a number from 0 to 1, got {}", options.min_p));
  }
  if (!(options.repetition_penalty > 0 && std::isfinite(options.repetition_penalty))) {
    throw ConfigError(
        fmt::format("repetition penalty: expected a number above 0, got {}", options.repetition_penalty));
  }
  CheckPenalty("presence", options.presence_penalty);
  CheckPenalty("frequency", options.frequency_penalty);
}

bool Sampler::Penalizes() const {
  return !bias_.empty() || options_.repetition_penalty != 1 || options_.presence_penalty != 0 ||
         options_.frequency_penalty != 0;
}

void Sampler::SeePrompt(std::span<const int32_t> prompt) {
  if (!Penalizes()) return;
  for (const int32_t token : prompt) drawn_.try_emplace(token, 0);
}

void Sampler::SeeDrawn(int32_t token) {
  if (Penalizes()) ++drawn_[token];
}

void Sampler::Resume(int32_t token) {
  SeeDrawn(token);
  if (options_.temperature > 0) random_.discard(1);
}

std::span<const float> Sampler::Penalized(std::span<const float> logits) {
  if (!Penalizes()) return logits;
  penalized_.assign(logits.begin(), logits.end());
  for (const auto& [token, added] : bias_) penalized_.at(static_cast<size_t>(token)) += added;
  for (const auto& [token, times] : drawn_) {
    float& logit = penalized_.at(static_cast<size_t>(token));
    double changed = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    if (times > 0) changed -= options_.presence_penalty + times * options_.frequency_penalty;
    logit = static_cast<float>(changed);
  }
  return penalized_;
}

int32_t Sampler::Draw(std::span<const float> raw_logits) {
  const std::span<const float> logits = Penalized(raw_logits);
  if (options_.temperature == 0) return LikeliestToken(logits);
  CheckNumbers(logits);
  Shortlist(logits);
  const double total = std::accumulate(weights_.begin(), weights_.end(), 0.0);
  const double unit = static_cast<double>(random_() >> 11) * 0x1p-53;  // [0, 1), the same on every platform
  double left = unit * total;
  for (size_t i = 0; i + 1 < ids_.size(); ++i) {
    left -= weights_[i];
    if (left < 0) return ids_[i];
  }
  return ids_.back();
}

void Sampler::Shortlist(std::span<const float> logits) {
  const auto likelier = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  ids_.resize(logits.size());
  std::iota(ids_.begin(), ids_.end(), 0);
  size_t kept = ids_.size();
  if (options_.top_k > 0) kept = std::min(kept, static_cast<size_t>(options_.top_k));
  std::partial_sort(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(kept), ids_.end(), likelier);
  ids_.resize(kept);

  const double top = logits[static_cast<size_t>(ids_.front())];
  weights_.clear();
  for (const int32_t id : ids_) {
    weights_.push_back(std::exp((logits[static_cast<size_t>(id)] - top) / options_.temperature));
  }
  if (options_.top_p < 1) {
    const double enough = options_.top_p * std::accumulate(weights_.begin(), weights_.end(), 0.0);
    double sum = 0;
    size_t n = 0;
    while (n < kept && sum < enough) sum += weights_[n++];
    kept = n;
  }
  while (weights_[kept - 1] < options_.min_p) --kept;  // the first weight is 1
  ids_.resize(kept);
  weights_.resize(kept);
}

}  // namespace runahead
