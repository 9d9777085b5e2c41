// OLMoE: Llama with a norm over all queries and over all keys of a row, and a mixture of experts in every layer.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseOlmoe(const JsonObject& config) {
  RefuseUnsupported(config, {"num_experts"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "OlmoeForCausalLM",
                              .family = "olmoe",
                              .default_max_positions = 4096,
                              .default_norm_epsilon = 1e-5});
  spec.qk_norm = QkNorm::kRow;
  ParseRope(config, spec);
  spec.mixture = ParseMixture(config, spec, {.default_experts = 64, .default_chosen = 8, .ffn = nullptr});
  spec.mixture.renormalise = config.Bool("norm_topk_prob", false);
  const bool attention_bias = config.Bool("attention_bias", false);
  model.sources = LlamaSources(spec, {.qkv = attention_bias, .out = attention_bias});
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = model.sources.layers[static_cast<size_t>(i)];
    const std::string attention = fmt::format("model.layers.{}.self_attn.", i);
    layer.q_norm = NormSource{attention + "q_norm", spec.q_features(), false};
    layer.k_norm = NormSource{attention + "k_norm", spec.kv_features(), false};
  }
  MixLayers(spec, {}, model.sources);
  return model;
}

}  // namespace runahead
