// GLM-4 in both forms (GLM-4-9B, and GLM-4-0414 with norms also behind attention and MLP): Llama with biases on q, k
// and v, gate and up in one matrix, and a rope that turns neighbours in a half of each head.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {
namespace {

ParsedModel ParseAnyGlm(const JsonObject& config, std::string_view architecture, std::string_view family,
                        bool norms_behind) {
  RefuseUnsupported(config, {"partial_rotary_factor"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = architecture,
                              .family = family,
                              .default_kv_heads = 2,
                              .default_head_dim = 128,
                              .default_max_positions = 131072,
                              .default_norm_epsilon = 1.5625e-7});
  ParseRope(config, spec, {.partial = true, .default_partial_factor = 0.5});
  model.sources = LlamaSources(spec, {.qkv = config.Bool("attention_bias", true)});
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = model.sources.layers[static_cast<size_t>(i)];
    const std::string prefix = fmt::format("model.layers.{}.", i);
    layer.gate_up = {WholeMatrix(prefix + "mlp.gate_up_proj", 2 * spec.ffn, spec.hidden, false)};
    if (!norms_behind) continue;
    layer.post_attention_norm = NormSource{prefix + "post_self_attn_layernorm", spec.hidden, false};
    layer.post_mlp_norm = NormSource{prefix + "post_mlp_layernorm", spec.hidden, false};
  }
  PairHeads(spec, model.sources);
  return model;
}

}  // namespace

ParsedModel ParseGlm(const JsonObject& config) { return ParseAnyGlm(config, "GlmForCausalLM", "glm", false); }
ParsedModel ParseGlm4(const JsonObject& config) { return ParseAnyGlm(config, "Glm4ForCausalLM", "glm4", true); }

}  // namespace runahead
