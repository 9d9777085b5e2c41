#include "model/architectures/common.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "runahead/error.h"

namespace runahead {
namespace {

// Far beyond any model that exists, and small enough for products of them to stay in range.
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxFeatures = int64_t{1} << 20;  // hidden, and all query heads together
constexpr int64_t kMaxFfn = int64_t{1} << 22;
constexpr int64_t kMaxHeadDim = 4096;
constexpr int64_t kMaxPositions = INT32_MAX;

Activation ParseActivation(const JsonObject& config, const CommonFields& fields) {
  constexpr std::array<std::pair<std::string_view, Activation>, 8> kActivations = {{
      {"silu", Activation::kSilu},
      {"swish", Activation::kSilu},
      {"gelu", Activation::kGelu},
      {"gelu_python", Activation::kGelu},
      {"gelu_new", Activation::kGeluTanh},
      {"gelu_fast", Activation::kGeluTanh},
      {"gelu_accurate", Activation::kGeluTanh},
      {"gelu_pytorch_tanh", Activation::kGeluTanh},
  }};
  const std::string name = config.String(fields.activation, fields.default_activation);
  for (const auto& [known, activation] : kActivations) {
    if (name == known) return activation;
  }
  config.Refuse(fields.activation, "expected silu, gelu or gelu_pytorch_tanh");
}

DType ParseStoredDType(const JsonObject& config) {
  const char* key = config.Has("dtype") ? "dtype" : "torch_dtype";
  std::string name = config.String(key, "float32");
  if (name.starts_with("torch.")) name = name.substr(6);
  if (name == "float32") return DType::kF32;
  if (name == "bfloat16") return DType::kBF16;
  if (name == "float16") return DType::kF16;
  config.Refuse(key, "expected float32, bfloat16 or float16");
}

}  // namespace

void RefuseUnsupported(const JsonObject& config, std::initializer_list<std::string_view> supported) {
  struct Option {
    const char* key;
    double neutral;  // the number that changes nothing; null and false always do
  };
  static constexpr std::array kOptions = {
      Option{"quantization_config", 0},
      Option{"compression_config", 0},
      Option{"sliding_window", 0},
      Option{"attention_chunk_size", 0},
      Option{"partial_rotary_factor", 1},
      Option{"rotary_pct", 1},
      Option{"rope_interleaved", 0},
      Option{"no_rope_layers", 0},
      Option{"no_rope_layer_interval", 0},
      Option{"alibi", 0},
      Option{"n_embed", 0},
      Option{"apply_residual_connection_post_layernorm", 0},
      Option{"new_decoder_architecture", 0},
      Option{"parallel_attn", 0},
      Option{"use_parallel_residual", 0},
      Option{"use_qk_norm", 0},
      Option{"qk_layernorm", 0},
      Option{"attn_logit_softcapping", 0},
      Option{"final_logit_softcapping", 0},
      Option{"query_pre_attn_scalar", 0},
      Option{"clip_qkv", 0},
      Option{"attention_multiplier", 1},
      Option{"embedding_multiplier", 1},
      Option{"residual_multiplier", 1},
      Option{"logits_scaling", 1},
      Option{"logit_scale", 1},
      Option{"scale_emb", 1},
      Option{"scale_depth", 0},
      Option{"num_experts", 0},
      Option{"num_local_experts", 0},
      Option{"n_routed_experts", 0},
      Option{"use_bidirectional_attention", 0},
      Option{"is_encoder_decoder", 0},
      Option{"add_cross_attention", 0},
  };
  for (const auto& [key, neutral] : kOptions) {
    if (std::find(supported.begin(), supported.end(), key) != supported.end() || !config.Has(key)) continue;
    const Json& value = config.At(key);
    const bool harmless = (value.is_boolean() && !value.get<bool>()) ||
                          (value.is_number() && value.get<double>() == neutral) ||
                          (value.is_array() && value.empty());
    if (!harmless) config.Refuse(key, "not supported for this architecture");
  }
}

std::vector<int64_t> ParseLayerTypes(const JsonObject& config, int layers, int64_t window) {
  if (!config.Has("layer_types")) return {};
  const Json& types = config.At("layer_types");
  if (!types.is_array() || types.size() != static_cast<size_t>(layers)) {
    config.Refuse("layer_types", fmt::format("expected an array of {} names, one per layer", layers));
  }
  std::vector<int64_t> windows;
  for (const Json& type : types) {
    const bool sliding = type == "sliding_attention";
    if ((!sliding && type != "full_attention") || (sliding && window == 0)) {
      config.Refuse("layer_types", window == 0 ? "expected full_attention everywhere"
                                               : "expected full_attention or sliding_attention");
    }
    windows.push_back(sliding ? window : 0);
  }
  return windows;
}

DecoderSpec ParseCommon(const JsonObject& config, const CommonFields& fields) {
  DecoderSpec spec;
  spec.architecture = fields.architecture;
  spec.family = fields.family;
  spec.layers = static_cast<int>(config.Int("num_hidden_layers", 1, kMaxLayers));
  spec.vocab = config.Int("vocab_size", 1, kMaxVocab);
  spec.hidden = config.Int("hidden_size", 1, kMaxFeatures);
  spec.ffn = fields.ffn_multiple == 0 ? config.Int(fields.ffn, 1, kMaxFfn)
                                      : config.Int(fields.ffn, 1, kMaxFfn, fields.ffn_multiple * spec.hidden);
  spec.q_heads = config.Int("num_attention_heads", 1, kMaxFeatures);
  const bool as_queries = fields.default_kv_heads == 0 || config.json().contains(fields.kv_heads);  // null, that is
  spec.kv_heads = config.Int(fields.kv_heads, 1, spec.q_heads, as_queries ? spec.q_heads : fields.default_kv_heads);
  if (spec.kv_heads > spec.q_heads || spec.q_heads % spec.kv_heads != 0) {
    throw ConfigError(fmt::format("{}: {}: expected a divisor of num_attention_heads {}, got {}", config.origin(),
                                  fields.kv_heads, spec.q_heads, spec.kv_heads));
  }
  const bool quotient = !config.Has("head_dim") && fields.default_head_dim == 0;
  if (quotient && spec.hidden % spec.q_heads != 0) {
    config.Refuse("num_attention_heads", fmt::format("expected a divisor of hidden_size {}", spec.hidden));
  }
  spec.head_dim =
      config.Int("head_dim", 1, kMaxHeadDim, quotient ? spec.hidden / spec.q_heads : fields.default_head_dim);
  if (spec.head_dim % 2 != 0 || spec.head_dim > kMaxHeadDim) {
    throw ConfigError(fmt::format("{}: head_dim: expected an even number up to {}, got {}", config.origin(),
                                  kMaxHeadDim, spec.head_dim));
  }
  if (spec.q_features() > kMaxFeatures) {
    config.Refuse("num_attention_heads",
                  fmt::format("expected at most {} features with head_dim {}", kMaxFeatures, spec.head_dim));
  }
  spec.max_positions = config.Int("max_position_embeddings", 1, kMaxPositions, fields.default_max_positions);
  spec.norm_epsilon = static_cast<float>(config.Number(fields.norm_epsilon, fields.default_norm_epsilon));
  if (!(spec.norm_epsilon >= 0 && spec.norm_epsilon <= 1)) config.Refuse(fields.norm_epsilon, "expected 0 to 1");
  spec.activation = ParseActivation(config, fields);
  spec.attention_scale = static_cast<float>(1 / std::sqrt(static_cast<double>(spec.head_dim)));
  spec.tied_head = config.Bool("tie_word_embeddings", fields.default_tied_head);
  spec.weights = ParseStoredDType(config);
  return spec;
}

void RequireWholeHeads(const JsonObject& config, const DecoderSpec& spec) {
  if (spec.q_features() != spec.hidden) {
    config.Refuse("head_dim",
                  fmt::format("expected hidden_size {} over num_attention_heads {}", spec.hidden, spec.q_heads));
  }
}

std::vector<int64_t> ParseQwenWindows(const JsonObject& config, int layers) {
  const bool sliding = config.Bool("use_sliding_window", false);
  const bool given = config.json().contains("sliding_window");
  const int64_t window = sliding ? (given ? config.Int("sliding_window", 1, INT32_MAX, 0) : 4096) : 0;
  std::vector<int64_t> windows = ParseLayerTypes(config, layers, window);
  if (windows.empty() && window != 0) {
    const int64_t first = config.Int("max_window_layers", 0, INT32_MAX, 28);
    windows.assign(static_cast<size_t>(layers), window);
    std::fill_n(windows.begin(), std::min<int64_t>(first, layers), 0);
  }
  return windows;
}

MatrixSource WholeMatrix(const std::string& name, int64_t rows, int64_t columns, bool bias) {
  return {name, rows, columns, bias, 0, rows};
}

WeightSources LlamaSources(const DecoderSpec& spec, const LlamaBiases& biases) {
  const auto norm = [&](const std::string& name) { return NormSource{name, spec.hidden, false}; };
  WeightSources sources;
  sources.embedding = WholeMatrix("model.embed_tokens", spec.vocab, spec.hidden, false);
  sources.final_norm = norm("model.norm");
  sources.head = WholeMatrix("lm_head", spec.vocab, spec.hidden, false);
  for (int i = 0; i < spec.layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    const std::string attention = layer + "self_attn.";
    const std::string mlp = layer + "mlp.";
    LayerSource source;
    source.attention_norm = norm(layer + "input_layernorm");
    source.qkv = {{WholeMatrix(attention + "q_proj", spec.q_features(), spec.hidden, biases.qkv)},
                  {WholeMatrix(attention + "k_proj", spec.kv_features(), spec.hidden, biases.qkv),
                   WholeMatrix(attention + "v_proj", spec.kv_features(), spec.hidden, biases.qkv)}};
    source.out = {WholeMatrix(attention + "o_proj", spec.hidden, spec.q_features(), biases.out)};
    source.mlp_norm = norm(layer + "post_attention_layernorm");
    source.gate_up = {WholeMatrix(mlp + "gate_proj", spec.ffn, spec.hidden, biases.mlp),
                      WholeMatrix(mlp + "up_proj", spec.ffn, spec.hidden, biases.mlp)};
    source.down = {WholeMatrix(mlp + "down_proj", spec.hidden, spec.ffn, biases.mlp)};
    sources.layers.push_back(std::move(source));
  }
  return sources;
}

std::vector<StackedSource> GroupedQkv(const std::string& name, const DecoderSpec& spec, bool bias) {
  const int64_t queries = spec.q_heads / spec.kv_heads * spec.head_dim;  // query rows of a group
  const int64_t group = queries + 2 * spec.head_dim;
  const auto rows = [&](int64_t begin, int64_t end) {
    return MatrixSource{name, spec.kv_heads * group, spec.hidden, bias, begin, end, spec.kv_heads, group};
  };
  const int64_t values = queries + spec.head_dim;
  return {{rows(0, queries)}, {rows(queries, values), rows(values, group)}};
}

}  // namespace runahead
