// What a decoder-only transformer is made of, whatever family it comes from.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "kv/kv_cache.h"
#include "ops/ops.h"

namespace runahead {

/// Dynamic NTK scaling: a token past the trained context turns by the frequencies of a sequence that ends with it.
struct DynamicRope {
  int64_t trained_positions = 0;  // 0: no such scaling
  double factor = 1;
  double theta = 0;
  int64_t rotary_dim = 0;

  [[nodiscard]] bool Stretches(int64_t position) const {
    return trained_positions > 0 && position >= trained_positions;
  }
  [[nodiscard]] std::vector<float> FrequenciesAt(int64_t position) const;  // [rotary_dim / 2]
};

/// Rotary position embedding (Su et al. 2021): angle(position, i) = position * inverse_frequencies[i].
struct RopeSpec {
  std::vector<float> inverse_frequencies;  // [rotary_dim / 2], scaling (linear, llama3, ...) applied; empty: no rope
  float magnitude = 1;                     // factor on cos and sin
  // LongRoPE (Ding et al. 2024): sequences longer than `short_positions` turn by other frequencies, from their first
  // position on.
  std::vector<float> long_inverse_frequencies;  // [rotary_dim / 2]; empty: the same at every length
  int64_t short_positions = 0;
  DynamicRope dynamic;

  [[nodiscard]] bool IsLong(int64_t tokens) const {
    return !long_inverse_frequencies.empty() && tokens > short_positions;
  }
};

/// How a layer's queries and keys turn.
enum class LayerRope : uint8_t { kMain, kLocal, kNone };

/// Multi-head latent attention (DeepSeek-V2, Liu et al. 2024, section 2.1): a cache row holds one latent vector, of
/// which each head's keys and values are linear maps, and one rotated key for all heads. DecoderSpec::head_dim is the
/// width of the rotated key, and kv_heads is 1.
struct LatentSpec {
  int64_t rank = 0;        // features of the latent vector; 0: attention has none
  int64_t query_rank = 0;  // features of a latent vector that queries are made of; 0: they are made of the input
  int64_t plain_dim = 0;   // features of a head's query and key that do not turn
  int64_t value_dim = 0;   // features of a head's value
};

/// How large the attention of a layer is.
struct AttentionSize {
  int64_t key_value_weights = 0;  // weights that make what a cache row holds
  int64_t query_weights = 0;      // weights that make the queries of a row
  int64_t out_weights = 0;        // weights that make a row's result of what its queries attended to
  int64_t pair_products = 0;      // products of a query and a position it sees, over all heads
};

/// What the norm of queries and keys is over: each head's features, or all features of a row (OLMo 2).
enum class QkNorm : uint8_t { kHead, kRow };

/// Whether the MLP reads what attention added to the residual stream, or works beside it (GPT-J, Falcon).
enum class BlockOrder : uint8_t { kSequential, kParallel };

/// Layers whose MLP is a mixture of experts (Shazeer et al. 2017): a router scores all experts, and each row goes
/// through those of the highest scores.
struct MixtureSpec {
  int64_t experts = 0;        // experts to choose from; 0: no layer has any
  int64_t chosen = 0;         // experts that a row goes through
  int64_t ffn = 0;            // features inside of each
  bool renormalise = false;   // the weights of the chosen experts sum to 1
  int64_t shared_ffn = 0;     // features inside of one more expert, which every row goes through; 0: there is none
  bool gated_shared = false;  // it is weighted by the logistic function of a score of its own; otherwise by 1
  std::vector<bool> layers;   // [layers], which have experts; empty: all
  Routing routing;
  ClampedGate clamped;  // of every expert

  /// Experts that a row goes through, the shared one included.
  [[nodiscard]] int64_t active() const { return chosen + (shared_ffn > 0 ? 1 : 0); }
  /// Scores of a row.
  [[nodiscard]] int64_t scores() const { return experts + (gated_shared ? 1 : 0); }
};

/// Weights of a layer's MLP for each feature of the residual stream.
struct MlpWeights {
  int64_t active = 0;  // weights that one row meets
  int64_t total = 0;   // all weights
};

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
  MixtureSpec mixture;
  bool gated_mlp = true;  // down(activation(gate(x)) * up(x)); otherwise down(activation(up(x)))
  float embedding_scale = 1;
  bool rounded_embedding_scale = false;  // the scale is rounded to the compute dtype, as Gemma has it
  float final_norm_scale = 1;            // factor of the last norm's weights: scales the logits
  LatentSpec latent;                     // of all layers
  QkNorm qk_norm = QkNorm::kHead;        // with a latent vector kRow: of its features
  float attention_scale = 1;             // factor of q.k, usually 1 / sqrt(head_dim)
  float attention_softcap = 0;           // AttentionOptions::softcap of every layer
  bool sinks = false;                    // AttentionOptions::sinks of every layer
  std::vector<int64_t> windows;  // [layers], AttentionOptions::window of each; empty: all positions everywhere
  float logit_softcap = 0;       // cap * tanh(logit / cap) of the head's output; 0: none
  RopeSpec rope;
  RopeSpec local_rope;                 // rope of LayerRope::kLocal
  std::vector<LayerRope> layer_ropes;  // [layers]; empty: kMain everywhere
  // Queries at position p grow by 1 + beta * log(1 + floor(p / positions)) (Llama 4, Ministral 3).
  float query_growth = 0;  // beta; 0: none
  int64_t query_growth_positions = 0;
  int64_t learned_positions = 0;    // rows of a learned table that is added to the embeddings; 0: none
  std::vector<float> alibi_slopes;  // [q_heads] (Press et al. 2022); empty: no ALiBi
  bool falcon_alibi = false;        // the biases are rounded to bf16 and scaled as the scores are
  bool tied_head = false;           // the output head is the embedding table
  DType weights = DType::kF32;

  [[nodiscard]] int64_t q_features() const { return q_heads * head_dim; }
  [[nodiscard]] int64_t kv_features() const { return kv_heads * head_dim; }
  [[nodiscard]] bool is_latent() const { return latent.rank > 0; }
  /// Features of a head's query before attention.
  [[nodiscard]] int64_t query_dim() const { return is_latent() ? latent.plain_dim + head_dim : head_dim; }
  /// Columns of LayerWeights::qkv's first part: all queries, or what they are made of.
  [[nodiscard]] int64_t query_columns() const {
    return latent.query_rank > 0 ? latent.query_rank : q_heads * query_dim();
  }
  /// Columns of LayerWeights::qkv's second part.
  [[nodiscard]] int64_t kv_columns() const { return is_latent() ? latent.rank + head_dim : 2 * kv_features(); }
  /// Columns of LayerWeights::out's input.
  [[nodiscard]] int64_t attended_columns() const { return q_heads * (is_latent() ? latent.value_dim : head_dim); }
  [[nodiscard]] AttentionSize attention_size() const {
    if (!is_latent()) return {hidden * kv_columns(), hidden * q_features(), q_features() * hidden, 2 * q_features()};
    const int64_t made = q_heads * query_dim();
    return {.key_value_weights = hidden * kv_columns(),
            .query_weights = hidden * query_columns() + (latent.query_rank > 0 ? latent.query_rank * made : 0) +
                             q_heads * latent.plain_dim * latent.rank,
            .out_weights = q_heads * latent.value_dim * (latent.rank + hidden),
            .pair_products = q_heads * (2 * latent.rank + head_dim)};
  }
  /// AttentionSize::pair_products of heads' own keys and values, made of latent vectors.
  [[nodiscard]] int64_t expanded_pair_products() const { return q_heads * (query_dim() + latent.value_dim); }
  /// Whether the MLP of a layer is a mixture of experts.
  [[nodiscard]] bool mixes(int layer) const {
    return mixture.experts > 0 && (mixture.layers.empty() || mixture.layers[static_cast<size_t>(layer)]);
  }
  /// Matrices of an MLP.
  [[nodiscard]] int64_t mlp_matrices() const { return gated_mlp ? 3 : 2; }
  [[nodiscard]] MlpWeights mlp_weights(int layer) const {
    if (!mixes(layer)) return {mlp_matrices() * ffn, mlp_matrices() * ffn};
    const int64_t common = mixture.scores() + mlp_matrices() * mixture.shared_ffn;
    const int64_t expert = mlp_matrices() * mixture.ffn;
    return {common + mixture.chosen * expert, common + mixture.experts * expert};
  }
  /// Features inside of the widest MLP of any layer.
  [[nodiscard]] int64_t widest_ffn() const {
    const int64_t widest_expert = std::max(mixture.ffn, mixture.shared_ffn);
    const bool any_plain =
        mixture.experts == 0 || std::count(mixture.layers.begin(), mixture.layers.end(), false) > 0;
    return any_plain ? std::max(ffn, widest_expert) : widest_expert;
  }
  /// Features that the first matrix of the widest MLP makes.
  [[nodiscard]] int64_t mlp_in_features() const { return gated_mlp ? 2 * widest_ffn() : widest_ffn(); }
  [[nodiscard]] int64_t window(int layer) const { return windows.empty() ? 0 : windows[static_cast<size_t>(layer)]; }
  [[nodiscard]] LayerRope layer_rope(int layer) const {
    return layer_ropes.empty() ? LayerRope::kMain : layer_ropes[static_cast<size_t>(layer)];
  }
  /// The cache one token needs in compute dtype `dtype`.
  [[nodiscard]] KvShape kv_shape(DType dtype) const { return {layers, kv_heads, head_dim, dtype, latent.rank}; }
};

}  // namespace runahead
