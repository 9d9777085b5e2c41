// Granite 3: Llama with constant factors on embeddings, scores, what a layer adds, and logits.
#include "model/architectures/common.h"

namespace runahead {

void ScaleAsGranite(const JsonObject& config, DecoderSpec& spec) {
  // A norm does not see the scale of its input but through its epsilon: the residual stream is kept divided by what
  // every layer's sum is multiplied by.
  const double residual = ParsePositive(config, "residual_multiplier", 1);
  spec.embedding_scale = static_cast<float>(ParsePositive(config, "embedding_multiplier", 1) / residual);
  spec.norm_epsilon = static_cast<float>(static_cast<double>(spec.norm_epsilon) / (residual * residual));
  spec.attention_scale = static_cast<float>(ParsePositive(config, "attention_multiplier", 1));
  spec.final_norm_scale = static_cast<float>(1 / ParsePositive(config, "logits_scaling", 1));
}

ParsedModel ParseGranite(const JsonObject& config) {
  RefuseUnsupported(config,
                    {"residual_multiplier", "embedding_multiplier", "attention_multiplier", "logits_scaling"});
  ParsedModel model;
  model.spec =
      ParseCommon(config, {.architecture = "GraniteForCausalLM", .family = "granite", .default_max_positions = 2048});
  ParseRope(config, model.spec);
  ScaleAsGranite(config, model.spec);
  const bool attention_bias = config.Bool("attention_bias", false);
  model.sources =
      LlamaSources(model.spec, {.qkv = attention_bias, .out = attention_bias, .mlp = config.Bool("mlp_bias", false)});
  return model;
}

}  // namespace runahead
