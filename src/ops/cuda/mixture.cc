#include "ops/cuda/mixture.h"

#include <algorithm>
#include <utility>

#include "ops/cuda/matmul.h"

namespace runahead::cuda {
namespace {

/// Slots of a tile: with few rows at each expert small ones, which waste less.
int TileSlots(int64_t slots, int64_t experts) {
  constexpr int kSmall = 16;
  constexpr int kLarge = 128;
  return slots <= kSmall * experts ? kSmall : kLarge;
}

template <typename Matrix>
ExpertMatrices MatricesOf(const Mixture& mixture, const Matrix& matrix) {
  ExpertMatrices matrices{};
  for (int64_t e = 0; e < mixture.choices(); ++e) {
    const auto& linear = static_cast<const CudaLinear&>(matrix(mixture.experts[static_cast<size_t>(e)]));
    CHECK(!linear.is_fp8());
    matrices.weights[e] = linear.Weights(0);
    matrices.biases[e] = static_cast<const float*>(linear.Bias(0, DType::kF32));
  }
  return matrices;
}

}  // namespace

int RoutedRows::MostTiles() const { return std::min(slots(), (slots() + tile_slots - 1) / tile_slots + experts); }

void Mixer::Add(const LaunchOn& on, TensorView x, TensorView scores, const Mixture& mixture,
                const MixtureMemory& memory, TensorView sum) {
  CHECK_LE(mixture.choices(), kMostExperts);
  CHECK_LE(mixture.routing.groups, kMostGroups);
  for (int64_t e = 0; e < mixture.choices(); ++e) {
    CHECK_EQ(mixture.experts[static_cast<size_t>(e)].down->in_features(), memory.inner.row_elements());
  }
  const RoutedRows routed = Route(x.rows(), mixture);
  const int64_t slots = routed.slots();
  ChooseExperts(on, scores, mixture, routed);
  SortByExpert(on, routed);
  MultiplyGatedByExperts(on, x, MatricesOf(mixture, [](const Expert& e) -> const Linear& { return *e.gate_up; }),
                         mixture, routed, memory.inner.Rows(0, slots));
  MultiplyByExperts(on, memory.inner.Rows(0, slots),
                    MatricesOf(mixture, [](const Expert& e) -> const Linear& { return *e.down; }), routed,
                    memory.results.Rows(0, slots));
  const bool gated = scores.row_elements() > mixture.choices();
  const TensorView gates = gated ? scores.Columns(mixture.choices(), mixture.choices() + 1) : TensorView();
  CombineExperts(on, memory.results, routed, mixture.shared, gates, sum);
}

RoutedRows Mixer::Route(int64_t rows, const Mixture& mixture) {
  RoutedRows routed{};
  routed.rows = static_cast<int>(rows);
  routed.experts = static_cast<int>(mixture.choices());
  routed.chosen = static_cast<int>(mixture.chosen);
  routed.tile_slots = TileSlots(routed.slots(), routed.experts);
  const auto slots = static_cast<size_t>(routed.slots());
  const size_t tile_bytes = static_cast<size_t>(routed.MostTiles()) * sizeof(ExpertTile);
  const size_t bytes = 4 * slots * sizeof(int32_t) + tile_bytes + sizeof(int32_t);
  if (memory_.bytes() < bytes) {
    memory_ = Buffer();
    memory_ = device_.Allocate(bytes + bytes / 4);
  }
  auto* next = reinterpret_cast<int32_t*>(memory_.data());
  const auto take = [&next](size_t count) { return std::exchange(next, next + count); };
  routed.expert_of = take(slots);
  routed.weight_of = reinterpret_cast<float*>(take(slots));
  routed.slot_of = take(slots);
  routed.row_of = take(slots);
  routed.tile_count = take(1);
  routed.tiles = reinterpret_cast<ExpertTile*>(next);
  return routed;
}

}  // namespace runahead::cuda
