// Matrix products (oneDNN, and our own kernels for a few rows).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ops/cpu/scratch.h"
#include "ops/cpu/team.h"
#include "ops/ops.h"

namespace runahead::cpu {

class CpuLinear;
struct Panel;

/// `parts` for activations of dtype `compute`; what has to be packed, in memory of `device`. Throws ConfigError when
/// it is short.
std::unique_ptr<Linear> PrepareLinear(Device& device, const std::vector<LinearPart>& parts, DType compute);

/// Multiplies by prepared weights. Keeps the primitives of the shapes it has met; the weights stay untouched, so that
/// ranks share them. One thread at a time.
class Multiplier {
 public:
  explicit Multiplier(const Team& team);
  ~Multiplier();

  /// y = x W^T + b over parts [first, first + count); see Ops::Matmul.
  void Multiply(TensorView x, const Linear& linear, int first, int count, TensorView y);

 private:
  struct Cache;

  void MultiplyPanel(TensorView x, const CpuLinear& linear, const Panel& panel, TensorView y);

  const Team& team_;
  std::unique_ptr<Cache> cache_;
};

}  // namespace runahead::cpu
