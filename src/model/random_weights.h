// Normally distributed bf16 numbers, fast and the same on every machine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/dtype.h"

namespace runahead {

/// The 65,536 mid-quantiles of a standard normal distribution: index k holds the value below which (k + 0.5) / 65536
/// of the distribution lies.
std::vector<float> NormalQuantiles();

/// Draws from a normal distribution by looking 16 hashed bits up in its quantiles. Which number comes depends on key
/// and index alone, so blocks may be filled in any order. Immutable.
class NormalBf16 {
 public:
  NormalBf16(const std::vector<float>& quantiles, double stddev);

  /// Numbers [first, first + out.size()) of the sequence `key`; `first` must be a multiple of 4.
  void Fill(uint64_t key, uint64_t first, std::span<BFloat16> out) const;

 private:
  std::vector<BFloat16> values_;  // [65536]
};

/// A well-mixed function of x (Steele, Lea and Flood 2014: SplitMix64).
uint64_t Mix(uint64_t x);

}  // namespace runahead
