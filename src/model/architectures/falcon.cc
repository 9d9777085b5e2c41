// Falcon in its variants: 7B (one kv head, attention and MLP side by side behind one norm), 40B and 180B (grouped
// heads, two norms), 11B (grouped heads, one norm), and RW (ALiBi, a block after the other, biases).
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {
namespace {

/// What config.json says beyond sizes.
struct Variant {
  bool grouped = false;    // new_decoder_architecture
  bool parallel = true;    // attention and MLP side by side
  bool two_norms = false;  // one for attention, one for the MLP, of the same input
  bool bias = false;
};

Variant ParseVariant(const JsonObject& config) {
  Variant variant;
  variant.grouped = config.Bool("new_decoder_architecture", false);
  variant.parallel = config.Bool("parallel_attn", true);
  if (variant.grouped && !variant.parallel)
    config.Refuse("parallel_attn", "expected true with new_decoder_architecture");
  const int64_t norms = config.Int("num_ln_in_parallel_attn", 1, 2, variant.grouped ? 2 : 1);
  if (norms == 2 && !variant.grouped) {
    config.Refuse("num_ln_in_parallel_attn", "expected 1 without new_decoder_architecture");
  }
  variant.two_norms = norms == 2;
  variant.bias = config.Bool("bias", false);
  return variant;
}

/// Heads that share a key: all, those of a group, or none.
int64_t KvHeads(const JsonObject& config, const DecoderSpec& spec, const Variant& variant) {
  if (variant.grouped) return spec.kv_heads;
  if (config.Bool("multi_query", true)) return 1;
  if (spec.kv_heads != spec.q_heads) {
    config.Refuse("num_kv_heads", fmt::format("expected {} without new_decoder_architecture", spec.q_heads));
  }
  return spec.q_heads;
}

LayerSource FalconLayer(const DecoderSpec& spec, const Variant& variant, int index) {
  const std::string prefix = fmt::format("transformer.h.{}.", index);
  const auto norm = [&](const char* name) { return NormSource{prefix + name, spec.hidden, true}; };
  LayerSource layer;
  layer.attention_norm = norm(variant.two_norms ? "ln_attn" : "input_layernorm");
  if (variant.two_norms) layer.mlp_norm = norm("ln_mlp");
  if (!variant.parallel) layer.mlp_norm = norm("post_attention_layernorm");
  layer.qkv = GroupedQkv(prefix + "self_attention.query_key_value", spec, variant.bias);
  layer.out = {WholeMatrix(prefix + "self_attention.dense", spec.hidden, spec.q_features(), variant.bias)};
  layer.gate_up = {WholeMatrix(prefix + "mlp.dense_h_to_4h", spec.ffn, spec.hidden, variant.bias)};
  layer.down = {WholeMatrix(prefix + "mlp.dense_4h_to_h", spec.hidden, spec.ffn, variant.bias)};
  return layer;
}

}  // namespace

ParsedModel ParseFalcon(const JsonObject& config) {
  RefuseUnsupported(config, {"alibi", "parallel_attn", "new_decoder_architecture"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "FalconForCausalLM",
                              .family = "falcon",
                              .ffn = "ffn_hidden_size",
                              .ffn_multiple = 4,
                              .kv_heads = "num_kv_heads",
                              .default_max_positions = 2048,
                              .norm_epsilon = "layer_norm_epsilon",
                              .default_norm_epsilon = 1e-5,
                              .activation = "activation",
                              .default_activation = "gelu",
                              .default_tied_head = true});
  RequireWholeHeads(config, spec);
  const Variant variant = ParseVariant(config);
  spec.kv_heads = KvHeads(config, spec, variant);
  spec.norm = NormKind::kLayer;
  spec.order = variant.parallel ? BlockOrder::kParallel : BlockOrder::kSequential;
  spec.gated_mlp = false;
  if (config.Bool("alibi", false)) {
    spec.alibi_slopes = AlibiSlopes(spec.q_heads);
    spec.falcon_alibi = true;
  } else {
    ParseRope(config, spec);
  }

  model.sources.prefix = "transformer.";
  model.sources.embedding = WholeMatrix("transformer.word_embeddings", spec.vocab, spec.hidden, false);
  model.sources.final_norm = {"transformer.ln_f", spec.hidden, true};
  model.sources.head = WholeMatrix("lm_head", spec.vocab, spec.hidden, false);
  for (int i = 0; i < spec.layers; ++i) model.sources.layers.push_back(FalconLayer(spec, variant, i));
  return model;
}

}  // namespace runahead
