// InternLM 2: Llama with q, k, v in one matrix by groups of heads, and names of its own. InternLM 3: Llama with
// biases as asked.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseInternLm2(const JsonObject& config) {
  RefuseUnsupported(config, {});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config,
                     {.architecture = "InternLM2ForCausalLM", .family = "internlm2", .default_max_positions = 2048});
  ParseRope(config, spec);
  const bool bias = config.Bool("bias", true);
  model.sources = LlamaSources(spec, {});
  model.sources.embedding.name = "model.tok_embeddings";
  model.sources.head.name = "output";
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = model.sources.layers[static_cast<size_t>(i)];
    const std::string prefix = fmt::format("model.layers.{}.", i);
    layer.attention_norm->name = prefix + "attention_norm";
    layer.mlp_norm->name = prefix + "ffn_norm";
    layer.qkv = GroupedQkv(prefix + "attention.wqkv", spec, bias);
    layer.out = {WholeMatrix(prefix + "attention.wo", spec.hidden, spec.q_features(), bias)};
    layer.gate_up = {WholeMatrix(prefix + "feed_forward.w1", spec.ffn, spec.hidden, false),
                     WholeMatrix(prefix + "feed_forward.w3", spec.ffn, spec.hidden, false)};
    layer.down = {WholeMatrix(prefix + "feed_forward.w2", spec.hidden, spec.ffn, false)};
  }
  return model;
}

ParsedModel ParseInternLm3(const JsonObject& config) {
  RefuseUnsupported(config, {});
  ParsedModel model;
  model.spec = ParseCommon(config, {.architecture = "InternLM3ForCausalLM",
                                    .family = "internlm3",
                                    .default_kv_heads = 2,
                                    .default_head_dim = 128,
                                    .default_max_positions = 32768,
                                    .default_norm_epsilon = 1e-5});
  ParseRope(config, model.spec);
  const bool qkv = config.Bool(config.Has("qkv_bias") ? "qkv_bias" : "attention_bias", false);
  const bool others = config.Bool(config.Has("bias") ? "bias" : "mlp_bias", false);
  model.sources = LlamaSources(model.spec, {.qkv = qkv, .out = others, .mlp = others});
  return model;
}

}  // namespace runahead
