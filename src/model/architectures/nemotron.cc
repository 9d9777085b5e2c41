// Nemotron: layer norms with weights around 0, a plain MLP with squared ReLU, and a rope on a half of each head.
#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseNemotron(const JsonObject& config) {
  RefuseUnsupported(config, {"partial_rotary_factor"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "NemotronForCausalLM",
                              .family = "nemotron",
                              .default_max_positions = 4096,
                              .norm_epsilon = "norm_eps",
                              .default_norm_epsilon = 1e-5,
                              .default_activation = "relu2",
                              .norm = NormKind::kLayer});
  ParseRope(config, spec, {.partial = true, .default_partial_factor = 0.5});
  spec.norm_offset = 1;
  spec.gated_mlp = false;
  const bool attention_bias = config.Bool("attention_bias", false);
  const bool mlp_bias = config.Bool("mlp_bias", false);
  model.sources = LlamaSources(spec, {.qkv = attention_bias, .out = attention_bias, .mlp = mlp_bias, .norms = true});
  return model;
}

}  // namespace runahead
