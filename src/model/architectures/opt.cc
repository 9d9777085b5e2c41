// OPT: learned positions, layer norms before attention and MLP, biases everywhere, ReLU.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseOpt(const JsonObject& config) {
  RefuseUnsupported(config, {});
  for (const char* key : {"do_layer_norm_before", "layer_norm_elementwise_affine"}) {
    if (!config.Bool(key, true)) config.Refuse(key, "expected true");
  }
  if (config.Bool("_remove_final_layer_norm", false)) config.Refuse("_remove_final_layer_norm", "expected false");
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "OPTForCausalLM",
                              .family = "opt",
                              .ffn = "ffn_dim",
                              .default_max_positions = 2048,
                              .norm_epsilon = "layer_norm_eps",
                              .default_norm_epsilon = 1e-5,
                              .activation = "activation_function",
                              .default_activation = "relu",
                              .default_tied_head = true,
                              .norm = NormKind::kLayer});
  RequireWholeHeads(config, spec);
  if (config.Int("word_embed_proj_dim", 1, INT32_MAX, spec.hidden) != spec.hidden) {
    config.Refuse("word_embed_proj_dim", fmt::format("expected hidden_size {}", spec.hidden));
  }
  constexpr int64_t kUnusedPositions = 2;  // rows of the table before that of position 0
  const bool bias = config.Bool("enable_bias", true);
  spec.gated_mlp = false;
  spec.learned_positions = spec.max_positions;
  WeightSources& sources = model.sources;
  sources.embedding = WholeMatrix("model.decoder.embed_tokens", spec.vocab, spec.hidden, false);
  const int64_t rows = spec.max_positions + kUnusedPositions;
  sources.positions =
      RowsOf(WholeMatrix("model.decoder.embed_positions", rows, spec.hidden, false), kUnusedPositions, rows);
  sources.final_norm = {"model.decoder.final_layer_norm", spec.hidden, true};
  sources.head = WholeMatrix("lm_head", spec.vocab, spec.hidden, false);
  for (int i = 0; i < spec.layers; ++i) {
    const std::string prefix = fmt::format("model.decoder.layers.{}.", i);
    const auto square = [&](const char* name) {
      return WholeMatrix(prefix + "self_attn." + name, spec.hidden, spec.hidden, bias);
    };
    LayerSource layer;
    layer.attention_norm = NormSource{prefix + "self_attn_layer_norm", spec.hidden, true};
    layer.qkv = {{square("q_proj")}, {square("k_proj"), square("v_proj")}};
    layer.out = {square("out_proj")};
    layer.mlp_norm = NormSource{prefix + "final_layer_norm", spec.hidden, true};
    layer.gate_up = {WholeMatrix(prefix + "fc1", spec.ffn, spec.hidden, bias)};
    layer.down = {WholeMatrix(prefix + "fc2", spec.hidden, spec.ffn, bias)};
    sources.layers.push_back(std::move(layer));
  }
  return model;
}

}  // namespace runahead
