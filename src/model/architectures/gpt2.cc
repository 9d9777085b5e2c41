// GPT-2: learned positions, layer norms, biases everywhere, matrices stored by input.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {
namespace {

MatrixSource Transposed(const std::string& name, int64_t rows, int64_t columns) {
  MatrixSource matrix = WholeMatrix(name, rows, columns, true);
  matrix.transposed = true;
  return matrix;
}

}  // namespace

ParsedModel ParseGpt2(const JsonObject& config) {
  RefuseUnsupported(config, {});
  constexpr const char* kScaleByLayer = "scale_attn_by_inverse_layer_idx";
  if (config.Bool(kScaleByLayer, false)) config.Refuse(kScaleByLayer, "not supported for this architecture");
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "GPT2LMHeadModel",
                              .family = "gpt2",
                              .layers = config.Has("n_layer") ? "n_layer" : "num_hidden_layers",
                              .hidden = config.Has("n_embd") ? "n_embd" : "hidden_size",
                              .q_heads = config.Has("n_head") ? "n_head" : "num_attention_heads",
                              .max_positions = config.Has("n_positions") ? "n_positions" : "max_position_embeddings",
                              .ffn = "n_inner",
                              .ffn_multiple = 4,
                              .default_max_positions = 1024,
                              .norm_epsilon = "layer_norm_epsilon",
                              .default_norm_epsilon = 1e-5,
                              .activation = "activation_function",
                              .default_activation = "gelu_new",
                              .default_tied_head = true,
                              .norm = NormKind::kLayer});
  RequireWholeHeads(config, spec);
  spec.gated_mlp = false;
  spec.learned_positions = spec.max_positions;
  if (!config.Bool("scale_attn_weights", true)) spec.attention_scale = 1;
  WeightSources& sources = model.sources;
  sources.prefix = "transformer.";
  sources.embedding = WholeMatrix("transformer.wte", spec.vocab, spec.hidden, false);
  sources.positions = WholeMatrix("transformer.wpe", spec.max_positions, spec.hidden, false);
  sources.final_norm = {"transformer.ln_f", spec.hidden, true};
  sources.head = WholeMatrix("lm_head", spec.vocab, spec.hidden, false);
  for (int i = 0; i < spec.layers; ++i) {
    const std::string prefix = fmt::format("transformer.h.{}.", i);
    const MatrixSource fused = Transposed(prefix + "attn.c_attn", 3 * spec.hidden, spec.hidden);
    LayerSource layer;
    layer.attention_norm = NormSource{prefix + "ln_1", spec.hidden, true};
    layer.qkv = {{RowsOf(fused, 0, spec.hidden)}, {RowsOf(fused, spec.hidden, 3 * spec.hidden)}};
    layer.out = {Transposed(prefix + "attn.c_proj", spec.hidden, spec.hidden)};
    layer.mlp_norm = NormSource{prefix + "ln_2", spec.hidden, true};
    layer.gate_up = {Transposed(prefix + "mlp.c_fc", spec.ffn, spec.hidden)};
    layer.down = {Transposed(prefix + "mlp.c_proj", spec.hidden, spec.ffn)};
    sources.layers.push_back(std::move(layer));
  }
  return model;
}

}  // namespace runahead
