// What a decoder-only transformer is made of, whatever family it comes from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kv/kv_cache.h"
#include "ops/ops.h"

namespace runahead {

/// Rotary position embedding (Su et al. 2021): angle(position, i) = position * inverse_frequencies[i].
struct RopeSpec {
  std::vector<float> inverse_frequencies;  // [rotary_dim / 2], scaling (linear, llama3, ...) already applied
  float magnitude = 1;                     // factor on cos and sin
};

/// The shape and arithmetic of one model. A plain value; each architecture fills it from its config.json.
struct DecoderSpec {
  std::string architecture;  // as config.json names it, "LlamaForCausalLM"
  int layers = 0;
  int64_t vocab = 0;
  int64_t hidden = 0;
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t ffn = 0;
  int64_t max_positions = 0;
  NormKind norm = NormKind::kRms;
  float norm_epsilon = 0;
  Activation activation = Activation::kSilu;
  float embedding_scale = 1;
  float attention_scale = 1;     // on q.k, usually 1 / sqrt(head_dim)
  float attention_softcap = 0;   // AttentionOptions::softcap of every layer
  std::vector<int64_t> windows;  // [layers], AttentionOptions::window of each; empty: all positions everywhere
  RopeSpec rope;
  bool qkv_bias = false;
  bool out_bias = false;
  bool mlp_bias = false;
  bool tied_head = false;  // the output head is the embedding table
  DType weights = DType::kF32;

  [[nodiscard]] int64_t q_features() const { return q_heads * head_dim; }
  [[nodiscard]] int64_t kv_features() const { return kv_heads * head_dim; }
  [[nodiscard]] int64_t window(int layer) const { return windows.empty() ? 0 : windows[static_cast<size_t>(layer)]; }
  /// The cache one token needs in compute dtype `dtype`.
  [[nodiscard]] KvShape kv_shape(DType dtype) const { return {layers, kv_heads, head_dim, dtype}; }
};

}  // namespace runahead
