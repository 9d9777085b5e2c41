// BLOOM: ALiBi, a norm of the embeddings, layer norms, biases everywhere.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseBloom(const JsonObject& config) {
  RefuseUnsupported(config, {"n_embed"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "BloomForCausalLM",
                              .family = "bloom",
                              .layers = config.Has("n_layer") ? "n_layer" : "num_hidden_layers",
                              .hidden = config.Has("n_embed") ? "n_embed" : "hidden_size",
                              .q_heads = config.Has("n_head") ? "n_head" : "num_attention_heads",
                              .max_positions = "seq_length",
                              .ffn = "ffn_hidden_size",
                              .ffn_multiple = 4,
                              .default_max_positions = 2048,
                              .norm_epsilon = "layer_norm_epsilon",
                              .default_norm_epsilon = 1e-5,
                              .default_activation = "gelu_pytorch_tanh",
                              .default_tied_head = true,
                              .norm = NormKind::kLayer});
  RequireWholeHeads(config, spec);
  spec.gated_mlp = false;
  spec.alibi_slopes = AlibiSlopes(spec.q_heads);
  WeightSources& sources = model.sources;
  sources.prefix = "transformer.";
  sources.embedding = WholeMatrix("transformer.word_embeddings", spec.vocab, spec.hidden, false);
  sources.embedding_norm = NormSource{"transformer.word_embeddings_layernorm", spec.hidden, true};
  sources.final_norm = {"transformer.ln_f", spec.hidden, true};
  sources.head = WholeMatrix("lm_head", spec.vocab, spec.hidden, false);
  for (int i = 0; i < spec.layers; ++i) {
    const std::string prefix = fmt::format("transformer.h.{}.", i);
    LayerSource layer;
    layer.attention_norm = NormSource{prefix + "input_layernorm", spec.hidden, true};
    layer.qkv = GroupedQkv(prefix + "self_attention.query_key_value", spec, true);
    layer.out = {WholeMatrix(prefix + "self_attention.dense", spec.hidden, spec.hidden, true)};
    layer.mlp_norm = NormSource{prefix + "post_attention_layernorm", spec.hidden, true};
    layer.gate_up = {WholeMatrix(prefix + "mlp.dense_h_to_4h", spec.ffn, spec.hidden, true)};
    layer.down = {WholeMatrix(prefix + "mlp.dense_4h_to_h", spec.hidden, spec.ffn, true)};
    sources.layers.push_back(std::move(layer));
  }
  return model;
}

}  // namespace runahead
