// How fast this machine multiplies matrices and copies memory: what a prompt phase and decoding are measured against.
#pragma once

#include <vector>

#include "ops/devices.h"
#include "tensor/dtype.h"

namespace runahead {

/// Rates of a large multiplication by several ranks at once.
struct MatmulCeiling {
  int ranks = 0;
  std::vector<double> rates;  // FLOP/s of all ranks together, one for each round
  double sustained = 0;       // FLOP/s of half a second without a pause, which a GPU's power limit may lower
  double registers = 0;       // FLOP/s of as many threads that touch no memory; 0: not measured, on GPUs

  [[nodiscard]] double Best() const;
  [[nodiscard]] double Median() const;
};

/// Rates of the ranks on `devices`, bound as the engine binds them, which begin together. Each multiplies random
/// numbers in `compute` with `threads` threads, through the same operations as the model: [1024, 2048] by [2048,
/// 8192] on the CPU, [8192, 8192] by as much on a GPU. A round of CPU ranks takes a fifth of a second or more. One
/// round goes ahead and is not counted.
MatmulCeiling MeasureMatmulCeiling(const std::vector<RankDevice>& devices, int threads, DType compute, int rounds);

/// Rate of copies within the memory of `device`, bytes read and written per second: the best of several, each far
/// larger than any cache.
double MeasureCopyRate(const RankDevice& device);

}  // namespace runahead
