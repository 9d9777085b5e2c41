// Mixtures of experts on a GPU: rows choose their experts, are sorted by them, and are multiplied by all of them at
// once, without the host in between.
#pragma once

#include <cstdint>

#include "ops/cuda/kernels.h"
#include "ops/ops.h"

namespace runahead::cuda {

/// Most experts to choose from.
inline constexpr int kMostExperts = 256;
/// Most groups of them.
inline constexpr int kMostGroups = 32;

/// Rows of one expert, that a block multiplies.
struct ExpertTile {
  int32_t expert;
  int32_t first;  // first of its slots
  int32_t slots;
};

/// Where rows go, in device memory. A slot is a place for a row at an expert; those of an expert follow each other,
/// its rows ascending, and experts follow each other too.
struct RoutedRows {
  int rows = 0;
  int experts = 0;
  int chosen = 0;       // experts of a row
  int tile_slots = 0;   // most slots of a tile
  int32_t* expert_of;   // [rows, chosen], ascending
  float* weight_of;     // [rows, chosen]
  int32_t* slot_of;     // [rows, chosen]
  int32_t* row_of;      // [slots]
  ExpertTile* tiles;    // [MostTiles()]
  int32_t* tile_count;  // tiles that there are

  [[nodiscard]] int slots() const { return rows * chosen; }
  [[nodiscard]] int MostTiles() const;
};

/// The matrices of experts, as a kernel is told them. Where gated, gates come first and then as many outputs.
struct ExpertMatrices {
  const void* weights[kMostExperts];  // each [outputs or 2 * outputs, in_features]
  const float* biases[kMostExperts];  // each [outputs or 2 * outputs]; null: none
};

/// Fills expert_of and weight_of. scores: [rows, at least experts], f32. mixture.choice_bias: device memory.
void ChooseExperts(const LaunchOn& on, TensorView scores, const Mixture& mixture, const RoutedRows& routed);
/// Fills slot_of, row_of, tiles and tile_count.
void SortByExpert(const LaunchOn& on, const RoutedRows& routed);

/// out[slot] = activation(gate) * up, or as ClampedGate says, of row row_of[slot] of x. x: [rows, in_features]; out:
/// [slots, features].
void MultiplyGatedByExperts(const LaunchOn& on, TensorView x, const ExpertMatrices& matrices, const Mixture& mixture,
                            const RoutedRows& routed, TensorView out);
/// out[slot] = x[slot] W^T + b. x: [slots, in_features]; out: [slots, features].
void MultiplyByExperts(const LaunchOn& on, TensorView x, const ExpertMatrices& matrices, const RoutedRows& routed,
                       TensorView out);
/// sum[row] += the weighted sum over a row's experts of results[slot_of], and with `shared` of results[slots + row],
/// whose weight is the logistic function of gates[row], or without `gates` 1. results: [slots, or slots + rows,
/// features]; sum: [rows, features]; gates: f32, whose first column counts, or empty.
void CombineExperts(const LaunchOn& on, TensorView results, const RoutedRows& routed, bool shared, TensorView gates,
                    TensorView sum);

/// Ops::AddMixture but for the shared expert, whose results are there already. Keeps memory for the largest call.
class Mixer {
 public:
  explicit Mixer(Device& device) : device_(device) {}

  /// See Ops::AddMixture.
  void Add(const LaunchOn& on, TensorView x, TensorView scores, const Mixture& mixture, const MixtureMemory& memory,
           TensorView sum);

 private:
  RoutedRows Route(int64_t rows, const Mixture& mixture);

  Device& device_;
  Buffer memory_;
};

}  // namespace runahead::cuda
