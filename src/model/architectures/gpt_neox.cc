// GPT-NeoX and Pythia: layer norms, biases, a rope on a part of each head, attention and MLP side by side behind a
// norm each.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseGptNeoX(const JsonObject& config) {
  RefuseUnsupported(config, {"rotary_pct", "partial_rotary_factor", "use_parallel_residual"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "GPTNeoXForCausalLM",
                              .family = "gpt_neox",
                              .default_max_positions = 2048,
                              .norm_epsilon = "layer_norm_eps",
                              .default_norm_epsilon = 1e-5,
                              .default_activation = "gelu"});
  RequireWholeHeads(config, spec);
  if (spec.kv_heads != spec.q_heads) {
    config.Refuse("num_key_value_heads", fmt::format("expected {} for this architecture", spec.q_heads));
  }
  ParseRope(
      config, spec,
      {.theta = "rotary_emb_base", .partial = true, .partial_factor = "rotary_pct", .default_partial_factor = 0.25});
  spec.norm = NormKind::kLayer;
  spec.order = config.Bool("use_parallel_residual", true) ? BlockOrder::kParallel : BlockOrder::kSequential;
  spec.gated_mlp = false;

  const bool attention_bias = config.Bool("attention_bias", true);
  model.sources.prefix = "gpt_neox.";
  model.sources.embedding = WholeMatrix("gpt_neox.embed_in", spec.vocab, spec.hidden, false);
  model.sources.final_norm = {"gpt_neox.final_layer_norm", spec.hidden, true};
  model.sources.head = WholeMatrix("embed_out", spec.vocab, spec.hidden, false);
  for (int i = 0; i < spec.layers; ++i) {
    const std::string prefix = fmt::format("gpt_neox.layers.{}.", i);
    LayerSource layer;
    layer.attention_norm = NormSource{prefix + "input_layernorm", spec.hidden, true};
    layer.qkv = GroupedQkv(prefix + "attention.query_key_value", spec, attention_bias);
    layer.out = {WholeMatrix(prefix + "attention.dense", spec.hidden, spec.q_features(), attention_bias)};
    layer.mlp_norm = NormSource{prefix + "post_attention_layernorm", spec.hidden, true};
    layer.gate_up = {WholeMatrix(prefix + "mlp.dense_h_to_4h", spec.ffn, spec.hidden, true)};
    layer.down = {WholeMatrix(prefix + "mlp.dense_4h_to_h", spec.hidden, spec.ffn, true)};
    model.sources.layers.push_back(std::move(layer));
  }
  return model;
}

}  // namespace runahead
