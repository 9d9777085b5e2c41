// StarCoder2: Llama with layer norms, biases, a plain MLP and a window.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseStarcoder2(const JsonObject& config) {
  RefuseUnsupported(config, {"sliding_window"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "Starcoder2ForCausalLM",
                              .family = "starcoder2",
                              .default_kv_heads = 2,
                              .default_max_positions = 4096,
                              .norm_epsilon = "norm_epsilon",
                              .default_norm_epsilon = 1e-5,
                              .default_activation = "gelu_pytorch_tanh",
                              .default_tied_head = true,
                              .norm = NormKind::kLayer});
  ParseRope(config, spec);
  spec.gated_mlp = false;
  if (config.Has("sliding_window")) {
    spec.windows.assign(static_cast<size_t>(spec.layers), config.Int("sliding_window", 1, INT32_MAX));
  }
  const bool bias = config.Bool("use_bias", true);
  model.sources = LlamaSources(spec, {.qkv = bias, .out = bias, .norms = true});
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = model.sources.layers[static_cast<size_t>(i)];
    const std::string mlp = fmt::format("model.layers.{}.mlp.", i);
    layer.gate_up = {WholeMatrix(mlp + "c_fc", spec.ffn, spec.hidden, bias)};
    layer.down = {WholeMatrix(mlp + "c_proj", spec.hidden, spec.ffn, bias)};
  }
  return model;
}

}  // namespace runahead
