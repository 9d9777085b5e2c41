// Qwen3: Llama with an RMS norm on every head of q and k, and Qwen2's windows.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseQwen3(const JsonObject& config) {
  RefuseUnsupported(config, {"sliding_window"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "Qwen3ForCausalLM",
                              .family = "qwen3",
                              .default_kv_heads = 32,
                              .default_head_dim = 128,
                              .default_max_positions = 32768});
  ParseRope(config, spec);
  spec.windows = ParseQwenWindows(config, spec.layers);
  const bool attention_bias = config.Bool("attention_bias", false);
  model.sources = LlamaSources(spec, {.qkv = attention_bias, .out = attention_bias});
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = model.sources.layers[static_cast<size_t>(i)];
    const std::string attention = fmt::format("model.layers.{}.self_attn.", i);
    layer.q_norm = NormSource{attention + "q_norm", spec.head_dim, false};
    layer.k_norm = NormSource{attention + "k_norm", spec.head_dim, false};
  }
  return model;
}

}  // namespace runahead
