// What of a model decides how much there is to compute and to move.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace runahead {

/// How many layers have the same window.
struct LayersOfWindow {
  int64_t window = 0;  // positions that a query sees; 0: all
  int layers = 0;
};

/// Weights of a layer's MLP for each feature of `hidden`: where it is a mixture of experts, a row meets a part of
/// them.
struct MlpSize {
  int64_t active = 0;  // weights that one row meets
  int64_t total = 0;

  friend bool operator==(const MlpSize&, const MlpSize&) = default;
};

/// An attention that is not one of heads of keys and values: weights and products of one layer.
struct AttentionWork {
  int64_t row = 0;                // numbers of one token in the cache
  int64_t key_value_weights = 0;  // weights that make these
  int64_t query_weights = 0;      // weights that make a token's queries
  int64_t out_weights = 0;        // weights that make a token's result of what its queries attended to
  int64_t pair_products = 0;      // products of a query and a position it sees, over all heads

  friend bool operator==(const AttentionWork&, const AttentionWork&) = default;
};

/// The sizes of a decoder and of an element of its compute dtype. A plain value, so that plans need no model.
struct WorkShape {
  int layers = 0;
  int64_t hidden = 0;
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t ffn = 0;
  int64_t vocab = 0;
  int mlp_matrices = 3;          // gate, up and down; 2 where the MLP is not gated
  size_t element_bytes = 2;      // bytes of an element of activations and cache
  double weight_bytes = 0;       // bytes of a weight of a layer's matrices; 0: as many as of an element
  double head_weight_bytes = 0;  // the same of the head
  std::string weight_format;     // "int8"; empty: as stored
  std::vector<MlpSize> mlps;     // [layers], where layers have experts; empty: mlp_matrices * ffn everywhere
  std::vector<int64_t> windows;  // [layers], positions that a query sees in each; 0: all. Empty: all everywhere

  std::optional<AttentionWork> latent;  // with latent attention what all its layers do; kv_heads is 1

  [[nodiscard]] int64_t q_features() const { return q_heads * head_dim; }
  [[nodiscard]] int64_t kv_features() const { return kv_heads * head_dim; }
  [[nodiscard]] int64_t window(int layer) const { return windows.empty() ? 0 : windows[static_cast<size_t>(layer)]; }
  /// The first `count` layers by their windows, each window once.
  [[nodiscard]] std::vector<LayersOfWindow> FirstLayers(int count) const;
  /// K and V of one token in one layer.
  [[nodiscard]] size_t RowBytes() const { return static_cast<size_t>(attention().row) * element_bytes; }
  /// The work of a layer's attention.
  [[nodiscard]] AttentionWork attention() const {
    if (latent) return *latent;
    return {2 * kv_features(), hidden * 2 * kv_features(), hidden * q_features(), q_features() * hidden,
            2 * q_features()};
  }
  /// FLOPs of one token's queries in one layer.
  [[nodiscard]] double QueryFlops() const { return 2 * static_cast<double>(attention().query_weights); }
  /// FLOPs of one token's keys and values in one layer.
  [[nodiscard]] double KeyValueFlops() const;
  [[nodiscard]] MlpSize mlp(int layer) const {
    return mlps.empty() ? MlpSize{mlp_matrices * ffn, mlp_matrices * ffn} : mlps[static_cast<size_t>(layer)];
  }
  /// FLOPs of everything else that one token's matmuls do in one layer: query, output, MLP.
  [[nodiscard]] double OtherLinearFlops(int layer) const;
  [[nodiscard]] double LinearFlops(int layer) const { return KeyValueFlops() + OtherLinearFlops(layer); }
  /// LinearFlops of the mean layer.
  [[nodiscard]] double MeanLinearFlops() const;
  /// Weights of the mean layer's matrices over those that one row meets.
  [[nodiscard]] double WeightsOverActive() const;
  /// FLOPs of a query and a position it sees, over all heads of one layer.
  [[nodiscard]] double PairFlops() const { return 2 * static_cast<double>(attention().pair_products); }
  [[nodiscard]] double HeadFlops() const { return 2 * static_cast<double>(hidden) * static_cast<double>(vocab); }
  [[nodiscard]] double WeightBytes() const {
    return weight_bytes > 0 ? weight_bytes : static_cast<double>(element_bytes);
  }
  [[nodiscard]] double HeadWeightBytes() const {
    return head_weight_bytes > 0 ? head_weight_bytes : static_cast<double>(element_bytes);
  }

  /// Every size in one line, the key of what was measured for this shape.
  [[nodiscard]] std::string ToString() const;

  friend bool operator==(const WorkShape&, const WorkShape&) = default;
};

/// Pairs of a query in [begin, end) and a position it sees: its own and those before it, within `window` (0: all).
int64_t CausalPairs(int64_t begin, int64_t end, int64_t window);

}  // namespace runahead
