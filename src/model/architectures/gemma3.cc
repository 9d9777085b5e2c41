// Gemma 3: Gemma 2 without soft caps, with a norm on every head of q and k, five layers with a window to one without,
// and a rope for each kind. The text part of folders with images is the same model.
#include <fmt/format.h>

#include <cmath>

#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseGemma3(const JsonObject& config) {
  RefuseUnsupported(config, {"sliding_window", "final_logit_softcapping", "query_pre_attn_scalar"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "Gemma3ForCausalLM",
                              .family = "gemma3_text",
                              .default_kv_heads = 4,
                              .default_head_dim = 256,
                              .default_max_positions = 131072,
                              .activation = "hidden_activation",
                              .default_activation = "gelu_pytorch_tanh",
                              .default_tied_head = true});
  spec.windows =
      ParsePatternWindows(config, spec.layers, 4096, config.Int("sliding_window_pattern", 1, INT32_MAX, 6));
  const int64_t positions = spec.max_positions;
  ParseRopesByLayerType(config, spec, {.default_theta = 1e6, .local_theta = "rope_local_base_freq"});
  spec.max_positions = positions;  // which the factor is counted in already
  spec.norm_offset = 1;
  spec.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(spec.hidden)));
  spec.rounded_embedding_scale = true;
  spec.attention_scale = static_cast<float>(1 / std::sqrt(ParsePositive(config, "query_pre_attn_scalar", 256)));
  spec.logit_softcap = ParseSoftcap(config, "final_logit_softcapping", 0);

  const bool attention_bias = config.Bool("attention_bias", false);
  model.sources = LlamaSources(spec, {.qkv = attention_bias, .out = attention_bias});
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = model.sources.layers[static_cast<size_t>(i)];
    const std::string prefix = fmt::format("model.layers.{}.", i);
    layer.q_norm = NormSource{prefix + "self_attn.q_norm", spec.head_dim, false};
    layer.k_norm = NormSource{prefix + "self_attn.k_norm", spec.head_dim, false};
    layer.post_attention_norm = NormSource{prefix + "post_attention_layernorm", spec.hidden, false};
    layer.mlp_norm = NormSource{prefix + "pre_feedforward_layernorm", spec.hidden, false};
    layer.post_mlp_norm = NormSource{prefix + "post_feedforward_layernorm", spec.hidden, false};
  }
  return model;
}

ParsedModel ParseGemma3WithImages(const JsonObject& config) {
  Json text = TextConfig(config);
  // What the files of the first release leave out.
  text.emplace("vocab_size", 262208);
  text.emplace("num_attention_heads", 8);
  ParsedModel model = ParseGemma3(JsonObject(text, config.origin() + ": text_config"));
  model.spec.architecture = "Gemma3ForConditionalGeneration";
  model.spec.family = "gemma3";
  model.spec.logit_softcap = 0;  // which HF transformers applies to the model of text alone
  return model;
}

}  // namespace runahead
