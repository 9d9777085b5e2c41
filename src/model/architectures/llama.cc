// Llama 1, 2, 3 and every model that names itself so: grouped-query attention, RMS norm, rope, SwiGLU.
#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseLlama(const JsonObject& config) {
  RefuseUnsupported(config, {});
  ParsedModel model;
  model.spec =
      ParseCommon(config, {.architecture = "LlamaForCausalLM", .family = "llama", .default_max_positions = 2048});
  ParseRope(config, model.spec);
  model.spec.windows = ParseLayerTypes(config, model.spec.layers, 0);
  const bool attention_bias = config.Bool("attention_bias", false);
  model.sources =
      LlamaSources(model.spec, {.qkv = attention_bias, .out = attention_bias, .mlp = config.Bool("mlp_bias", false)});
  return model;
}

}  // namespace runahead
