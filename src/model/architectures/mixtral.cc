// Mixtral: Mistral with a mixture of experts in every layer.
#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseMixtral(const JsonObject& config) {
  RefuseUnsupported(config, {"sliding_window", "num_local_experts"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "MixtralForCausalLM",
                              .family = "mixtral",
                              .default_kv_heads = 8,
                              .default_max_positions = 131072,
                              .default_norm_epsilon = 1e-5});
  ParseRope(config, spec, {.default_theta = 1e6});
  spec.windows = ParsePatternWindows(config, spec.layers, 0, INT32_MAX);
  spec.mixture = ParseMixture(
      config, spec, {.experts = "num_local_experts", .default_experts = 8, .default_chosen = 2, .ffn = nullptr});
  spec.mixture.renormalise = true;
  model.sources = LlamaSources(spec, {});
  MixLayers(spec,
            {.router = "block_sparse_moe.gate",
             .experts = "block_sparse_moe.experts.",
             .gate = "w1",
             .up = "w3",
             .down = "w2"},
            model.sources);
  return model;
}

}  // namespace runahead
