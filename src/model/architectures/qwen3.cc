// Qwen3: Llama with an RMS norm on every head of q and k, and Qwen2's windows.
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
  NormHeads(spec, model.sources);
  return model;
}

}  // namespace runahead
