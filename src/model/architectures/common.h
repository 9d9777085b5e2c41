// What the config.json and the tensors of several families have in common.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "base/json.h"
#include "model/architectures.h"
#include "model/decoder_spec.h"

namespace runahead {

inline constexpr int64_t kMaxPositions = INT32_MAX;  // of any model

/// Where a family departs from Llama: names of fields, and what is meant where config.json leaves one out (the
/// defaults of HF transformers).
struct CommonFields {
  std::string_view architecture;  // the name in the table of architectures
  std::string_view family;
  const char* layers = "num_hidden_layers";
  const char* hidden = "hidden_size";
  const char* q_heads = "num_attention_heads";
  const char* max_positions = "max_position_embeddings";
  const char* ffn = "intermediate_size";
  int64_t ffn_multiple = 0;  // multiple of hidden_size; 0: the field must be there
  const char* kv_heads = "num_key_value_heads";
  int64_t default_kv_heads = 0;  // 0: as many as query heads, which is also what null means
  int64_t default_head_dim = 0;  // 0: hidden_size / num_attention_heads
  int64_t default_max_positions = 0;
  const char* norm_epsilon = "rms_norm_eps";
  double default_norm_epsilon = 1e-6;
  const char* activation = "hidden_act";
  const char* default_activation = "silu";
  bool default_tied_head = false;
  NormKind norm = NormKind::kRms;
};

/// Reads the fields that the families share: sizes, heads, norm, activation, head, dtype. Throws ConfigError naming
/// field and value.
DecoderSpec ParseCommon(const JsonObject& config, const CommonFields& fields);

/// Refuses a head_dim other than hidden_size / num_attention_heads.
void RequireWholeHeads(const JsonObject& config, const DecoderSpec& spec);

/// Refuses every option that changes a model's numbers in a way the family does not have, unless it is in `supported`
/// or has the value that changes nothing; of quantisations "mxfp4".
void RefuseUnsupported(const JsonObject& config, std::initializer_list<std::string_view> supported);

/// Rows and columns of an FP8 matrix that share a scale, 128 each where config.json does not say. Throws ConfigError
/// for quantisations that are not supported; with `mxfp4` that one is.
std::array<int64_t, 2> ScaleBlock(const JsonObject& config, bool mxfp4 = false);

/// How a family names the options of its rope.
struct RopeFields {
  const char* theta = "rope_theta";
  double default_theta = 10000;
  bool partial = false;  // true: the rotation may cover a part of each head
  const char* partial_factor = "partial_rotary_factor";
  double default_partial_factor = 1;
  bool yarn_is_longrope = false;      // Phi-3's first name for it
  int64_t default_trained = 0;        // trained positions where config.json names none; 0: all
  const char* local_theta = nullptr;  // the field for layers with a window; null: `theta`
  double default_local_theta = 10000;
};

/// Reads the rope of a model whose sizes are known into `spec.rope`: `rope_parameters`, or `rope_scaling` and the
/// fields outside. Types default, linear, dynamic, llama3, yarn and longrope; others are refused by name. Frequencies
/// are computed in f32 as HF transformers does. Where a factor stretches the context that the model was trained for
/// (linear, yarn), `spec.max_positions` grows with it.
void ParseRope(const JsonObject& config, DecoderSpec& spec, const RopeFields& fields = {});

/// The same for families with one rope for layers that see everything, `spec.rope`, and one for those with a window,
/// `spec.local_rope`. Windows must be known.
void ParseRopesByLayerType(const JsonObject& config, DecoderSpec& spec, const RopeFields& fields);

/// YaRN's factor of cosines and sines: 0.1 * scale * ln(factor) + 1.
double YarnMagnitude(double factor, double scale);

/// `layer_types` as one window per layer: `window` for "sliding_attention", 0 for "full_attention". Empty when the
/// field is missing.
std::vector<int64_t> ParseLayerTypes(const JsonObject& config, int layers, int64_t window);

/// The windows of Qwen2 and Qwen3: none, or from layer `max_window_layers` on, or as `layer_types` says.
std::vector<int64_t> ParseQwenWindows(const JsonObject& config, int layers);

/// Windows of `config`'s sliding_window (missing: `otherwise`, null: none) in the layers that layer_types names, or
/// without it in all but every `pattern`-th.
std::vector<int64_t> ParsePatternWindows(const JsonObject& config, int layers, int64_t otherwise, int64_t pattern);

/// ALiBi's slopes of the heads: powers of 2^(-8/n) for n heads, n a power of two; other head counts take every second
/// power of the next power of two for the heads that are left (Press et al. 2022 and their code).
std::vector<float> AlibiSlopes(int64_t heads);

/// A positive number; `otherwise` where the field is missing.
double ParsePositive(const JsonObject& config, const char* key, double otherwise);

/// A soft cap: missing means `otherwise`, null means none.
float ParseSoftcap(const JsonObject& config, const char* key, double otherwise);

/// Makes q and k of every layer, in `sources`, heads whose features turn in pairs of neighbours. Each must be a whole
/// matrix.
void PairHeads(const DecoderSpec& spec, WeightSources& sources);

/// The object `text_config` with what only the object around it says: a model of text in a folder of more.
Json TextConfig(const JsonObject& config);

/// Granite's constant factors, into a spec whose other fields are known.
void ScaleAsGranite(const JsonObject& config, DecoderSpec& spec);

/// All rows of `name`.
MatrixSource WholeMatrix(const std::string& name, int64_t rows, int64_t columns, bool bias);

/// Rows [begin, end) of a whole matrix.
MatrixSource RowsOf(MatrixSource matrix, int64_t begin, int64_t end);

/// Which matrices and norms of Llama's layout have a bias.
struct LlamaBiases {
  bool qkv = false;
  bool out = false;
  bool mlp = false;
  bool norms = false;
};

/// The tensors of Llama, which many families share.
WeightSources LlamaSources(const DecoderSpec& spec, const LlamaBiases& biases);

/// A norm over each head of q and k, with the same weights for all heads (Qwen3).
void NormHeads(const DecoderSpec& spec, WeightSources& sources);

/// How a family names the fields of its mixtures of experts, and what is meant where config.json leaves one out.
struct MixtureFields {
  const char* experts = "num_experts";
  int64_t default_experts = 0;
  const char* chosen = "num_experts_per_tok";
  int64_t default_chosen = 0;
  const char* ffn = "moe_intermediate_size";  // null: intermediate_size
  int64_t default_ffn = 0;
};

/// Reads the sizes of a mixture that is in all layers.
MixtureSpec ParseMixture(const JsonObject& config, const DecoderSpec& spec, const MixtureFields& fields);

/// Takes the mixture from the layers that Qwen's `mlp_only_layers` and `decoder_sparse_step` leave out.
void ParseQwenMixtureLayers(const JsonObject& config, DecoderSpec& spec);

/// What the tensors of a layer's router and experts are called: behind `experts` follow an expert's number and a dot.
struct MixtureNames {
  std::string router = "mlp.gate";
  std::string experts = "mlp.experts.";
  std::string gate = "gate_proj";
  std::string up = "up_proj";
  std::string down = "down_proj";
};

/// Gives every layer that has a mixture its experts, each of three tensors.
void MixLayers(const DecoderSpec& spec, const MixtureNames& names, WeightSources& sources);

/// Queries, keys and values of a fused matrix whose rows go by group of heads: the queries of kv head 0, its key, its
/// value, then those of kv head 1 and so on. Returns the parts q | k,v.
std::vector<StackedSource> GroupedQkv(const std::string& name, const DecoderSpec& spec, bool bias);

}  // namespace runahead
