// StableLM: Llama with layer norms, a rope on a quarter of each head, and in its larger ones a norm of its own for
// every head and MLPs beside attention.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseStableLm(const JsonObject& config) {
  RefuseUnsupported(config, {"partial_rotary_factor", "use_parallel_residual", "qk_layernorm"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "StableLmForCausalLM",
                              .family = "stablelm",
                              .default_kv_heads = 32,
                              .default_max_positions = 4096,
                              .norm_epsilon = "layer_norm_eps",
                              .default_norm_epsilon = 1e-5,
                              .norm = NormKind::kLayer});
  RequireWholeHeads(config, spec);
  ParseRope(config, spec, {.partial = true, .default_partial_factor = 0.25});
  if (config.Bool("use_parallel_residual", false)) spec.order = BlockOrder::kParallel;
  const bool head_norms = config.Bool("qk_layernorm", false);
  model.sources = LlamaSources(spec, {.qkv = config.Bool("use_qkv_bias", false), .norms = true});
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = model.sources.layers[static_cast<size_t>(i)];
    const std::string attention = fmt::format("model.layers.{}.self_attn.", i);
    if (spec.order == BlockOrder::kParallel) layer.mlp_norm.reset();
    if (!head_norms) continue;
    layer.q_norm = NormSource{attention + "q_layernorm.norms", spec.q_features(), false, spec.q_heads};
    layer.k_norm = NormSource{attention + "k_layernorm.norms", spec.kv_features(), false, spec.kv_heads};
  }
  return model;
}

}  // namespace runahead
