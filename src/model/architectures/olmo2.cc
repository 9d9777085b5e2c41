// OLMo 2: Llama with norms behind attention and MLP instead of before them, and a norm over all queries and over all
// keys of a row. OLMo 3 adds windows in three of four layers, and scales the rope of the others alone.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {
namespace {

WeightSources OlmoSources(const JsonObject& config, const DecoderSpec& spec) {
  const bool attention_bias = config.Bool("attention_bias", false);
  WeightSources sources = LlamaSources(spec, {.qkv = attention_bias, .out = attention_bias});
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = sources.layers[static_cast<size_t>(i)];
    const std::string prefix = fmt::format("model.layers.{}.", i);
    layer.attention_norm.reset();
    layer.mlp_norm.reset();
    layer.q_norm = NormSource{prefix + "self_attn.q_norm", spec.q_features(), false};
    layer.k_norm = NormSource{prefix + "self_attn.k_norm", spec.kv_features(), false};
    layer.post_attention_norm = NormSource{prefix + "post_attention_layernorm", spec.hidden, false};
    layer.post_mlp_norm = NormSource{prefix + "post_feedforward_layernorm", spec.hidden, false};
  }
  return sources;
}

}  // namespace

ParsedModel ParseOlmo2(const JsonObject& config) {
  RefuseUnsupported(config, {});
  ParsedModel model;
  model.spec = ParseCommon(config, {.architecture = "Olmo2ForCausalLM",
                                    .family = "olmo2",
                                    .default_max_positions = 2048,
                                    .default_norm_epsilon = 1e-5});
  model.spec.qk_norm = QkNorm::kRow;
  ParseRope(config, model.spec);
  model.sources = OlmoSources(config, model.spec);
  return model;
}

ParsedModel ParseOlmo3(const JsonObject& config) {
  RefuseUnsupported(config, {"sliding_window"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "Olmo3ForCausalLM",
                              .family = "olmo3",
                              .default_max_positions = 2048,
                              .default_norm_epsilon = 1e-5});
  spec.qk_norm = QkNorm::kRow;
  spec.windows = ParsePatternWindows(config, spec.layers, 4096, 4);
  ParseRopesByLayerType(config, spec, {.default_theta = 5e5, .default_local_theta = 5e5});
  model.sources = OlmoSources(config, spec);
  return model;
}

}  // namespace runahead
