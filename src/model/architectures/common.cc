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

Activation ParseActivation(const JsonObject& config) {
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
  const std::string name = config.String("hidden_act", "silu");
  for (const auto& [known, activation] : kActivations) {
    if (name == known) return activation;
  }
  config.Refuse("hidden_act", "expected silu, gelu or gelu_pytorch_tanh");
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

double Positive(const JsonObject& object, const char* key, double value, double max) {
  if (!(value > 0 && value <= max)) {
    throw ConfigError(
        fmt::format("{}: {}: expected a number above 0 and at most {}, got {}", object.origin(), key, max, value));
  }
  return value;
}

/// inverse_frequency[i] = 1 / theta^(2i / rotary_dim) (Su et al. 2021, section 3.2.2).
std::vector<float> InverseFrequencies(double theta, int64_t rotary_dim) {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < rotary_dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(rotary_dim);
    frequencies.push_back(1.0F / std::pow(static_cast<float>(theta), exponent));
  }
  return frequencies;
}

/// Scaling of Llama 3.1 ("The Llama 3 Herd of Models", 2024, and its reference code): waves much shorter than the
/// trained context stay, much longer ones are divided by `factor`, those between are blended.
void ScaleLlama3(const JsonObject& rope, int64_t trained_positions, std::vector<float>& frequencies) {
  const double factor = Positive(rope, "factor", rope.Number("factor"), 1e6);
  const double low = Positive(rope, "low_freq_factor", rope.Number("low_freq_factor"), 1e6);
  const double high = Positive(rope, "high_freq_factor", rope.Number("high_freq_factor"), 1e6);
  if (high <= low) rope.Refuse("high_freq_factor", "expected more than low_freq_factor");
  const auto trained = static_cast<double>(trained_positions);
  const auto longest = static_cast<float>(trained / low);
  const auto shortest = static_cast<float>(trained / high);
  for (float& frequency : frequencies) {
    const float wave = static_cast<float>(2 * M_PI) / frequency;
    const auto divisor = static_cast<float>(factor);
    if (wave > longest) {
      frequency /= divisor;
    } else if (!(wave < shortest)) {
      const float blend =
          (static_cast<float>(trained) / wave - static_cast<float>(low)) / static_cast<float>(high - low);
      frequency = (1 - blend) * frequency / divisor + blend * frequency;
    }
  }
}

void ScaleRope(const JsonObject& config, const JsonObject& rope, int64_t max_positions, RopeSpec& spec) {
  const char* type_key = rope.Has("rope_type") ? "rope_type" : "type";
  const std::string type = rope.String(type_key, "default");
  if (type == "linear") {
    const auto factor = static_cast<float>(Positive(rope, "factor", rope.Number("factor"), 1e6));
    for (float& frequency : spec.inverse_frequencies) frequency /= factor;
  } else if (type == "llama3") {
    const char* key = "original_max_position_embeddings";
    const JsonObject& holder = config.Has(key) ? config : rope;
    ScaleLlama3(rope, holder.Int(key, 1, kMaxPositions, max_positions), spec.inverse_frequencies);
  } else if (type != "default") {
    rope.Refuse(type_key, "expected default, linear or llama3");
  }
  if (rope.Has("partial_rotary_factor") && rope.Number("partial_rotary_factor") != 1) {
    rope.Refuse("partial_rotary_factor", "expected 1 for this architecture");
  }
}

}  // namespace

RopeSpec ParseRope(const JsonObject& config, int64_t rotary_dim, int64_t max_positions) {
  constexpr double kMaxTheta = 1e18;
  // The order of HF transformers: rope_scaling takes the place of rope_parameters, whose theta comes before the
  // outer.
  const bool old_form = config.Has("rope_scaling") && !config.At("rope_scaling").empty();
  const char* key = old_form ? "rope_scaling" : "rope_parameters";
  double theta = Positive(config, "rope_theta", config.Number("rope_theta", 10000), kMaxTheta);
  if (!config.Has(key)) return {InverseFrequencies(theta, rotary_dim), 1};
  const JsonObject rope = config.Object(key);
  for (const auto& [name, value] : rope.json().items()) {
    if (value.is_object()) rope.Refuse(name.c_str(), "expected one rope for all layers");
  }
  theta = Positive(rope, "rope_theta", rope.Number("rope_theta", theta), kMaxTheta);
  RopeSpec spec{InverseFrequencies(theta, rotary_dim), 1};
  ScaleRope(config, rope, max_positions, spec);
  return spec;
}

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

DecoderSpec ParseCommon(const JsonObject& config, std::string_view architecture, const ConfigDefaults& defaults) {
  DecoderSpec spec;
  spec.architecture = architecture;
  spec.layers = static_cast<int>(config.Int("num_hidden_layers", 1, kMaxLayers));
  spec.vocab = config.Int("vocab_size", 1, kMaxVocab);
  spec.hidden = config.Int("hidden_size", 1, kMaxFeatures);
  spec.ffn = config.Int("intermediate_size", 1, kMaxFfn);
  spec.q_heads = config.Int("num_attention_heads", 1, kMaxFeatures);
  const bool as_queries = defaults.kv_heads == 0 || config.json().contains("num_key_value_heads");  // null, that is
  spec.kv_heads = config.Int("num_key_value_heads", 1, spec.q_heads, as_queries ? spec.q_heads : defaults.kv_heads);
  if (spec.q_heads % spec.kv_heads != 0) {
    throw ConfigError(fmt::format("{}: num_key_value_heads: expected a divisor of num_attention_heads {}, got {}",
                                  config.origin(), spec.q_heads, spec.kv_heads));
  }
  if (!config.Has("head_dim") && spec.hidden % spec.q_heads != 0) {
    config.Refuse("num_attention_heads", fmt::format("expected a divisor of hidden_size {}", spec.hidden));
  }
  spec.head_dim = config.Int("head_dim", 1, kMaxHeadDim, spec.hidden / spec.q_heads);
  if (spec.head_dim % 2 != 0 || spec.head_dim > kMaxHeadDim) {
    throw ConfigError(fmt::format("{}: head_dim: expected an even number up to {}, got {}", config.origin(),
                                  kMaxHeadDim, spec.head_dim));
  }
  if (spec.q_features() > kMaxFeatures) {
    config.Refuse("num_attention_heads",
                  fmt::format("expected at most {} features with head_dim {}", kMaxFeatures, spec.head_dim));
  }
  spec.max_positions = config.Int("max_position_embeddings", 1, kMaxPositions, defaults.max_positions);
  spec.norm_epsilon = static_cast<float>(config.Number("rms_norm_eps", defaults.norm_epsilon));
  if (!(spec.norm_epsilon >= 0 && spec.norm_epsilon <= 1)) config.Refuse("rms_norm_eps", "expected 0 to 1");
  spec.activation = ParseActivation(config);
  spec.attention_scale = static_cast<float>(1 / std::sqrt(static_cast<double>(spec.head_dim)));
  spec.rope = ParseRope(config, spec.head_dim, spec.max_positions);
  spec.tied_head = config.Bool("tie_word_embeddings", false);
  spec.weights = ParseStoredDType(config);
  return spec;
}

}  // namespace runahead
