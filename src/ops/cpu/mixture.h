// Mixtures of experts on the CPU.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/cpu/matmul/multiplier.h"
#include "ops/cpu/team.h"
#include "ops/ops.h"

namespace runahead::cpu {

/// Sends rows through their experts: each expert multiplies all of its rows at once, by all threads. Holds what it
/// needs to know of rows. One thread at a time. The bits of a result depend on its row alone.
class Mixer {
 public:
  Mixer(const Team& team, Multiplier& multiplier) : team_(team), multiplier_(multiplier) {}

  /// See Ops::AddMixture.
  void Add(TensorView x, TensorView scores, const Mixture& mixture, const MixtureMemory& memory, TensorView sum);

 private:
  void Choose(TensorView scores, const Mixture& mixture);
  /// Gives each pair of a row and one of its experts a row of the results: those of an expert follow each other.
  void Sort(const Mixture& mixture, int64_t rows);
  void Multiply(TensorView x, const Expert& expert, const Mixture& mixture, const MixtureMemory& memory,
                TensorView results);
  void Combine(const Mixture& mixture, TensorView results, TensorView sum);

  const Team& team_;
  Multiplier& multiplier_;
  std::vector<int32_t> expert_of_;  // [rows, active], ascending in a row
  std::vector<float> weights_;      // [rows, active]
  std::vector<int64_t> slot_of_;    // [rows, active]: a row of the results
  std::vector<int64_t> row_of_;     // [rows * active]: the row of x behind each of the results
  std::vector<int64_t> begins_;     // [experts + 1]: each one's first row of the results
};

}  // namespace runahead::cpu
