// Llama 1, 2, 3 and everything that names itself so: grouped-query attention, RMS norm, rope, SwiGLU.
#include <fmt/format.h>

#include "model/architectures.h"
#include "model/architectures/common.h"

namespace runahead {

DecoderSpec ParseLlama(const JsonObject& config) {
  RefuseUnsupported(config, {});
  DecoderSpec spec = ParseCommon(config, "LlamaForCausalLM", {.kv_heads = 0, .max_positions = 2048});
  spec.windows = ParseLayerTypes(config, spec.layers, 0);
  spec.qkv_bias = config.Bool("attention_bias", false);
  spec.out_bias = spec.qkv_bias;
  spec.mlp_bias = config.Bool("mlp_bias", false);
  return spec;
}

WeightSources LlamaSources(const DecoderSpec& spec) {
  const auto matrix = [](const std::string& name, int64_t rows, int64_t columns, bool bias) {
    return MatrixSource{name, rows, columns, bias, 0, rows};
  };
  const auto norm = [&](const std::string& name) { return NormSource{name, spec.hidden, false}; };
  WeightSources sources;
  sources.embedding = matrix("model.embed_tokens", spec.vocab, spec.hidden, false);
  sources.final_norm = norm("model.norm");
  sources.head = matrix("lm_head", spec.vocab, spec.hidden, false);
  for (int i = 0; i < spec.layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    const std::string attention = layer + "self_attn.";
    const std::string mlp = layer + "mlp.";
    sources.layers.push_back({
        .attention_norm = norm(layer + "input_layernorm"),
        .qkv = {{matrix(attention + "q_proj", spec.q_features(), spec.hidden, spec.qkv_bias)},
                {matrix(attention + "k_proj", spec.kv_features(), spec.hidden, spec.qkv_bias),
                 matrix(attention + "v_proj", spec.kv_features(), spec.hidden, spec.qkv_bias)}},
        .out = {matrix(attention + "o_proj", spec.hidden, spec.q_features(), spec.out_bias)},
        .mlp_norm = norm(layer + "post_attention_layernorm"),
        .gate_up = {matrix(mlp + "gate_proj", spec.ffn, spec.hidden, spec.mlp_bias),
                    matrix(mlp + "up_proj", spec.ffn, spec.hidden, spec.mlp_bias)},
        .down = {matrix(mlp + "down_proj", spec.hidden, spec.ffn, spec.mlp_bias)},
    });
  }
  return sources;
}

}  // namespace runahead
