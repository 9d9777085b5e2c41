// How fast this machine multiplies matrices: what a prompt phase is measured against.
#pragma once

#include <vector>

#include "tensor/dtype.h"

namespace runahead::cli {

/// Rates of a large multiplication by several ranks at once.
struct MatmulCeiling {
  int ranks = 0;
  std::vector<double> rates;  // FLOP/s of all ranks together, one for each round

  [[nodiscard]] double Best() const;
  [[nodiscard]] double Median() const;
};

/// Each of `ranks` ranks, bound as the engine binds them, multiplies [1024, 2048] by [2048, 8192] random numbers in
/// `compute` with `threads` threads, through the same operations as the model; all begin together. A round takes a
/// fifth of a second or more, and is preceded by one that is not counted.
MatmulCeiling MeasureMatmulCeiling(int ranks, int threads, DType compute, int rounds);

double MedianOf(std::vector<double> values);

}  // namespace runahead::cli
