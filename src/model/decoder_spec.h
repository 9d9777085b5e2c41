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
  std::vector<float> inverse_frequencies;  // [rotary_dim / 2], scaling (linear, llama3, ...) applied; empty: no rope
  float magnitude = 1;                     // factor on cos and sin
  // LongRoPE (Ding et al. 2024): sequences longer than `short_positions` turn by other frequencies, from their first
  // position on.
  std::vector<float> long_inverse_frequencies;  // [rotary_dim / 2]; empty: the same at every length
  int64_t short_positions = 0;

  [[nodiscard]] bool IsLong(int64_t tokens) const {
    return !long_inverse_frequencies.empty() && tokens > short_positions;
  }
};

/// Whether the MLP reads what attention added to the residual stream, or works beside it (GPT-J, Falcon).
enum class BlockOrder : uint8_t { kSequential, kParallel };

/// The shape and arithmetic of one model. A plain value; each architecture fills it from its config.json.
struct DecoderSpec {
  std::string architecture;  // the name in config.json, "LlamaForCausalLM"
  std::string family;        // the model_type in config.json, "llama"
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
  float norm_offset = 0;  // added to the norms' weights as they are loaded
  BlockOrder order = BlockOrder::kSequential;
  Activation activation = Activation::kSilu;
  bool gated_mlp = true;  // down(activation(gate(x)) * up(x)); otherwise down(activation(up(x)))
  float embedding_scale = 1;
  float attention_scale = 1;     // factor of q.k, usually 1 / sqrt(head_dim)
  float attention_softcap = 0;   // AttentionOptions::softcap of every layer
  std::vector<int64_t> windows;  // [layers], AttentionOptions::window of each; empty: all positions everywhere
  float logit_softcap = 0;       // cap * tanh(logit / cap) of the head's output; 0: none
  RopeSpec rope;
  std::vector<float> alibi_slopes;  // [q_heads] (Press et al. 2022); empty: no ALiBi
  bool tied_head = false;           // the output head is the embedding table
  DType weights = DType::kF32;

  [[nodiscard]] int64_t q_features() const { return q_heads * head_dim; }
  [[nodiscard]] int64_t kv_features() const { return kv_heads * head_dim; }
  /// Features that the first matrix of the MLP makes.
  [[nodiscard]] int64_t mlp_in_features() const { return gated_mlp ? 2 * ffn : ffn; }
  [[nodiscard]] int64_t window(int layer) const { return windows.empty() ? 0 : windows[static_cast<size_t>(layer)]; }
  /// The cache one token needs in compute dtype `dtype`.
  [[nodiscard]] KvShape kv_shape(DType dtype) const { return {layers, kv_heads, head_dim, dtype}; }
};

}  // namespace runahead
