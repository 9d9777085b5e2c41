#include "model/random_weights.h"

#include <cmath>
#include <cstddef>
#include <numbers>

#include "base/check.h"

namespace runahead {
namespace {

constexpr size_t kQuantiles = 65536;
constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;  // 2^64 / golden ratio: SplitMix64's increment
constexpr uint64_t kPerHash = 4;                 // numbers from one 64-bit hash

}  // namespace

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

std::vector<float> NormalQuantiles() {
  std::vector<float> quantiles(kQuantiles);
  double x = 0;
  for (size_t k = kQuantiles / 2; k < kQuantiles; ++k) {  // the upper half, outwards; the lower one mirrors it
    const double above = 1 - (static_cast<double>(k) + 0.5) / kQuantiles;
    // Newton's method on the upper tail, which is convex for x > 0: it converges from the last quantile.
    for (int i = 0; i < 8; ++i) {
      const double tail = 0.5 * std::erfc(x / std::numbers::sqrt2);
      const double density = std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
      x += (tail - above) / density;
    }
    quantiles[k] = static_cast<float>(x);
    quantiles[kQuantiles - 1 - k] = -static_cast<float>(x);
  }
  return quantiles;
}

NormalBf16::NormalBf16(const std::vector<float>& quantiles, double stddev) : values_(kQuantiles) {
  CHECK_EQ(quantiles.size(), kQuantiles);
  for (size_t k = 0; k < kQuantiles; ++k) values_[k] = BFloat16(static_cast<float>(quantiles[k] * stddev));
}

void NormalBf16::Fill(uint64_t key, uint64_t first, std::span<BFloat16> out) const {
  CHECK_EQ(first % kPerHash, uint64_t{0});
  const BFloat16* values = values_.data();
  uint64_t counter = key + first / kPerHash * kStep;
  size_t i = 0;
  for (; i + kPerHash <= out.size(); i += kPerHash) {
    counter += kStep;
    const uint64_t hash = Mix(counter);
    out[i] = values[hash & 0xffff];
    out[i + 1] = values[(hash >> 16) & 0xffff];
    out[i + 2] = values[(hash >> 32) & 0xffff];
    out[i + 3] = values[hash >> 48];
  }
  uint64_t hash = Mix(counter + kStep);
  for (; i < out.size(); ++i, hash >>= 16) out[i] = values[hash & 0xffff];
}

}  // namespace runahead
