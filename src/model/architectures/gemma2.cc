// Gemma 2: norms before and after attention and MLP with weights around 0, soft caps on scores and logits, a window
// in every other layer, embeddings scaled by the root of their width.
#include <fmt/format.h>

#include <cmath>

#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseGemma2(const JsonObject& config) {
  RefuseUnsupported(config,
                    {"sliding_window", "attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "Gemma2ForCausalLM",
                              .family = "gemma2",
                              .default_kv_heads = 4,
                              .default_head_dim = 256,
                              .default_max_positions = 8192,
                              .activation = "hidden_activation",
                              .default_activation = "gelu_pytorch_tanh",
                              .default_tied_head = true});
  ParseRope(config, spec);
  spec.norm_offset = 1;
  spec.rounded_embedding_scale = true;
  spec.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(spec.hidden)));
  const double scalar = ParsePositive(config, "query_pre_attn_scalar", 256);
  spec.attention_scale = static_cast<float>(1 / std::sqrt(scalar));
  spec.attention_softcap = ParseSoftcap(config, "attn_logit_softcapping", 50);
  spec.logit_softcap = ParseSoftcap(config, "final_logit_softcapping", 30);

  spec.windows = ParsePatternWindows(config, spec.layers, 4096, 2);

  const bool attention_bias = config.Bool("attention_bias", false);
  model.sources = LlamaSources(spec, {.qkv = attention_bias, .out = attention_bias});
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = model.sources.layers[static_cast<size_t>(i)];
    const std::string prefix = fmt::format("model.layers.{}.", i);
    layer.post_attention_norm = NormSource{prefix + "post_attention_layernorm", spec.hidden, false};
    layer.mlp_norm = NormSource{prefix + "pre_feedforward_layernorm", spec.hidden, false};
    layer.post_mlp_norm = NormSource{prefix + "post_feedforward_layernorm", spec.hidden, false};
  }
  return model;
}

}  // namespace runahead
