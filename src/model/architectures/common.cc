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

Activation ParseActivation(const JsonObject& config, const CommonFields& fields) {
  constexpr std::array<std::pair<std::string_view, Activation>, 10> kActivations = {{
      {"silu", Activation::kSilu},
      {"swish", Activation::kSilu},
      {"gelu", Activation::kGelu},
      {"gelu_python", Activation::kGelu},
      {"gelu_new", Activation::kGeluTanh},
      {"gelu_fast", Activation::kGeluTanh},
      {"gelu_accurate", Activation::kGeluTanh},
      {"gelu_pytorch_tanh", Activation::kGeluTanh},
      {"relu", Activation::kRelu},
      {"relu2", Activation::kReluSquared},
  }};
  const std::string name = config.String(fields.activation, fields.default_activation);
  for (const auto& [known, activation] : kActivations) {
    if (name == known) return activation;
  }
  config.Refuse(fields.activation, "expected silu, gelu, gelu_pytorch_tanh, relu or relu2");
}

DType ParseStoredDType(const JsonObject& config) {
  const char* key = config.Has("dtype") ? "dtype" : "torch_dtype";
  std::string name = config.String(key, "float32");
  if (name.starts_with("torch.")) name = name.substr(6);
  if (name == "auto") return DType::kF32;  // ModelConfig::WeightDType asks the files
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
  const bool mxfp4 = std::find(supported.begin(), supported.end(), "mxfp4") != supported.end();
  static_cast<void>(ScaleBlock(config, mxfp4));
  static constexpr std::array kOptions = {
      Option{"compression_config", 0},
      Option{"qk_norm", 0},
      Option{"llama_4_scaling", 0},
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
  spec.layers = static_cast<int>(config.Int(fields.layers, 1, kMaxLayers));
  spec.vocab = config.Int("vocab_size", 1, kMaxVocab);
  spec.hidden = config.Int(fields.hidden, 1, kMaxFeatures);
  spec.ffn = fields.ffn_multiple == 0 ? config.Int(fields.ffn, 1, kMaxFfn)
                                      : config.Int(fields.ffn, 1, kMaxFfn, fields.ffn_multiple * spec.hidden);
  spec.q_heads = config.Int(fields.q_heads, 1, kMaxFeatures);
  const bool as_queries = fields.default_kv_heads == 0 || config.json().contains(fields.kv_heads);  // null, that is
  spec.kv_heads = config.Int(fields.kv_heads, 1, spec.q_heads, as_queries ? spec.q_heads : fields.default_kv_heads);
  if (spec.kv_heads > spec.q_heads || spec.q_heads % spec.kv_heads != 0) {
    throw ConfigError(fmt::format("{}: {}: expected a divisor of {} {}, got {}", config.origin(), fields.kv_heads,
                                  fields.q_heads, spec.q_heads, spec.kv_heads));
  }
  const bool quotient = !config.Has("head_dim") && fields.default_head_dim == 0;
  if (quotient && spec.hidden % spec.q_heads != 0) {
    config.Refuse(fields.q_heads, fmt::format("expected a divisor of {} {}", fields.hidden, spec.hidden));
  }
  spec.head_dim =
      config.Int("head_dim", 1, kMaxHeadDim, quotient ? spec.hidden / spec.q_heads : fields.default_head_dim);
  if (spec.head_dim % 2 != 0 || spec.head_dim > kMaxHeadDim) {
    throw ConfigError(fmt::format("{}: head_dim: expected an even number up to {}, got {}", config.origin(),
                                  kMaxHeadDim, spec.head_dim));
  }
  if (spec.q_features() > kMaxFeatures) {
    config.Refuse(fields.q_heads,
                  fmt::format("expected at most {} features with head_dim {}", kMaxFeatures, spec.head_dim));
  }
  spec.max_positions = config.Int(fields.max_positions, 1, kMaxPositions, fields.default_max_positions);
  spec.norm_epsilon = static_cast<float>(config.Number(fields.norm_epsilon, fields.default_norm_epsilon));
  if (!(spec.norm_epsilon >= 0 && spec.norm_epsilon <= 1)) config.Refuse(fields.norm_epsilon, "expected 0 to 1");
  spec.norm = fields.norm;
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

std::vector<int64_t> ParsePatternWindows(const JsonObject& config, int layers, int64_t otherwise, int64_t pattern) {
  const bool given = config.json().contains("sliding_window");
  const int64_t window = given ? config.Int("sliding_window", 1, INT32_MAX, 0) : otherwise;
  std::vector<int64_t> windows = ParseLayerTypes(config, layers, window);
  for (int64_t layer = 0; std::ssize(windows) < layers; ++layer) {
    windows.push_back(pattern == 0 || (layer + 1) % pattern == 0 ? 0 : window);
  }
  return windows;
}

std::vector<float> AlibiSlopes(int64_t heads) {
  int64_t power = 1;
  while (2 * power <= heads) power *= 2;
  std::vector<float> slopes;
  const auto slope = [](int64_t heads_of_base, int64_t exponent) {
    const double base = std::exp2(-8.0 / static_cast<double>(heads_of_base));
    return static_cast<float>(std::pow(base, static_cast<double>(exponent)));
  };
  for (int64_t i = 1; i <= power; ++i) slopes.push_back(slope(power, i));
  for (int64_t i = 1; std::ssize(slopes) < heads; i += 2) slopes.push_back(slope(2 * power, i));
  return slopes;
}

double ParsePositive(const JsonObject& config, const char* key, double otherwise) {
  const double value = config.Number(key, otherwise);
  if (!(value > 0 && value < 1e6)) config.Refuse(key, "expected a positive number");
  return value;
}

float ParseSoftcap(const JsonObject& config, const char* key, double otherwise) {
  if (!config.json().contains(key)) return static_cast<float>(otherwise);
  if (!config.Has(key)) return 0;
  const double cap = config.Number(key);
  if (!(cap > 0 && cap < 1e6)) config.Refuse(key, "expected a positive number or null");
  return static_cast<float>(cap);
}

void PairHeads(const DecoderSpec& spec, WeightSources& sources) {
  const auto rotary_dim = static_cast<int64_t>(2 * spec.rope.inverse_frequencies.size());
  const PairedHeads paired{spec.head_dim, rotary_dim};
  for (int layer = 0; layer < spec.layers; ++layer) {
    if (spec.layer_rope(layer) == LayerRope::kNone) continue;
    LayerSource& source = sources.layers[static_cast<size_t>(layer)];
    source.qkv[0][0].paired = paired;
    source.qkv[1][0].paired = paired;
    if (source.q_norm) source.q_norm->paired = paired;
    if (source.k_norm) source.k_norm->paired = paired;
  }
}

Json TextConfig(const JsonObject& config) {
  Json text = config.Object("text_config").json();
  for (const char* key : {"dtype", "torch_dtype", "tie_word_embeddings", "quantization_config"}) {
    if (!text.contains(key) && config.Has(key)) text[key] = config.At(key);
  }
  return text;
}

MatrixSource WholeMatrix(const std::string& name, int64_t rows, int64_t columns, bool bias) {
  MatrixSource matrix;
  matrix.name = name;
  matrix.rows = matrix.end = rows;
  matrix.columns = columns;
  matrix.bias = bias;
  return matrix;
}

MatrixSource RowsOf(MatrixSource matrix, int64_t begin, int64_t end) {
  matrix.begin = begin;
  matrix.end = end;
  return matrix;
}

WeightSources LlamaSources(const DecoderSpec& spec, const LlamaBiases& biases) {
  const auto norm = [&](const std::string& name) { return NormSource{name, spec.hidden, biases.norms}; };
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
    if (spec.gated_mlp) source.gate_up = {WholeMatrix(mlp + "gate_proj", spec.ffn, spec.hidden, biases.mlp)};
    source.gate_up.push_back(WholeMatrix(mlp + "up_proj", spec.ffn, spec.hidden, biases.mlp));
    source.down = {WholeMatrix(mlp + "down_proj", spec.hidden, spec.ffn, biases.mlp)};
    sources.layers.push_back(std::move(source));
  }
  return sources;
}

void NormHeads(const DecoderSpec& spec, WeightSources& sources) {
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = sources.layers[static_cast<size_t>(i)];
    const std::string attention = fmt::format("model.layers.{}.self_attn.", i);
    layer.q_norm = NormSource{attention + "q_norm", spec.head_dim, false};
    layer.k_norm = NormSource{attention + "k_norm", spec.head_dim, false};
  }
}

std::vector<StackedSource> GroupedQkv(const std::string& name, const DecoderSpec& spec, bool bias) {
  const int64_t queries = spec.q_heads / spec.kv_heads * spec.head_dim;  // query rows of a group
  const int64_t group = queries + 2 * spec.head_dim;
  const auto rows = [&](int64_t begin, int64_t end) {
    MatrixSource matrix = WholeMatrix(name, spec.kv_heads * group, spec.hidden, bias);
    matrix.begin = begin;
    matrix.end = end;
    matrix.blocks = spec.kv_heads;
    matrix.stride = group;
    return matrix;
  };
  const int64_t values = queries + spec.head_dim;
  return {{rows(0, queries)}, {rows(queries, values), rows(values, group)}};
}

}  // namespace runahead
