// Matrix products of one rank, cut into blocks for its threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/cpu/matmul/kernel.h"
#include "ops/cpu/matmul/linear.h"
#include "ops/cpu/scratch.h"
#include "ops/cpu/team.h"
#include "ops/ops.h"

namespace runahead::cpu {

/// Multiplies by prepared weights, which ranks share. Holds its workers' memory. One thread at a time. The bits of a
/// result depend on its row of x, its feature's weights and the linear's kernel alone.
class Multiplier {
 public:
  explicit Multiplier(const Team& team) : team_(team), scratch_(static_cast<size_t>(team.threads())) {}

  /// y = x W^T + b over parts [first, first + count); see Ops::Matmul.
  void Multiply(TensorView x, const Linear& linear, int first, int count, TensorView y);
  /// See Ops::MatmulAdd.
  void MultiplyAdd(TensorView x, const Linear& linear, TensorView sum);
  /// See Ops::MatmulActivate; `product` is written or not.
  void MultiplyActivate(TensorView x, const Linear& linear, Activation activation, TensorView product,
                        TensorView out);

 private:
  /// A worker's memory: a kernel's, and what activations read.
  struct WorkerScratch {
    Scratch kernel;
    Scratch activated;
  };
  /// One matrix of a product and where its sums go.
  struct Target {
    const Matrix* matrix;
    Sink sink;
  };

  PackedRows PackX(TensorView x, const Kernel& kernel, int64_t depth);
  /// PackX as integers.
  void QuantiseX(TensorView x, const Kernel& kernel, PackedRows& packed, std::byte* to);
  std::vector<Target> TargetsOf(const CpuLinear& linear, int first, int count, TensorView y, bool add) const;
  void Run(TensorView x, const CpuLinear& linear, std::span<const Target> targets);
  /// Activates blocks of features as they come: `gates` of a matrix, with the `ups` of the same place behind them or
  /// none.
  void RunActivated(TensorView x, const CpuLinear& linear, Activation activation, TensorView out);

  const Team& team_;
  std::vector<WorkerScratch> scratch_;  // [workers]
  Scratch packed_x_;
  Scratch row_scales_;
};

}  // namespace runahead::cpu
