// Phi-1, Phi-1.5 and Phi-2: attention and MLP side by side behind one layer norm, biases everywhere, also in the
// head, and a rope on a part of each head.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParsePhi(const JsonObject& config) {
  RefuseUnsupported(config, {"partial_rotary_factor", "qk_layernorm"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "PhiForCausalLM",
                              .family = "phi",
                              .default_max_positions = 2048,
                              .norm_epsilon = "layer_norm_eps",
                              .default_norm_epsilon = 1e-5,
                              .default_activation = "gelu_new",
                              .norm = NormKind::kLayer});
  ParseRope(config, spec, {.partial = true, .default_partial_factor = 0.5});
  spec.order = BlockOrder::kParallel;
  spec.gated_mlp = false;
  const bool head_norms = config.Bool("qk_layernorm", false);
  model.sources = LlamaSources(spec, {.qkv = true, .norms = true});
  model.sources.final_norm.name = "model.final_layernorm";
  model.sources.head.bias = true;
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = model.sources.layers[static_cast<size_t>(i)];
    const std::string prefix = fmt::format("model.layers.{}.", i);
    layer.mlp_norm.reset();
    layer.out = {WholeMatrix(prefix + "self_attn.dense", spec.hidden, spec.q_features(), true)};
    layer.gate_up = {WholeMatrix(prefix + "mlp.fc1", spec.ffn, spec.hidden, true)};
    layer.down = {WholeMatrix(prefix + "mlp.fc2", spec.hidden, spec.ffn, true)};
    if (!head_norms) continue;
    layer.q_norm = NormSource{prefix + "self_attn.q_layernorm", spec.head_dim, true};
    layer.k_norm = NormSource{prefix + "self_attn.k_layernorm", spec.head_dim, true};
  }
  return model;
}

}  // namespace runahead
