// Qwen2 and Qwen2.5: Llama with biases on q, k and v, and a sliding window in some layers where it is switched on.
#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseQwen2(const JsonObject& config) {
  RefuseUnsupported(config, {"sliding_window"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "Qwen2ForCausalLM",
                              .family = "qwen2",
                              .default_kv_heads = 32,
                              .default_max_positions = 32768});
  ParseRope(config, spec);
  spec.windows = ParseQwenWindows(config, spec.layers);
  model.sources = LlamaSources(spec, {.qkv = true});
  return model;
}

}  // namespace runahead
