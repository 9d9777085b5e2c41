// Mistral: Llama with a sliding window.
#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseMistral(const JsonObject& config) {
  RefuseUnsupported(config, {"sliding_window"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "MistralForCausalLM",
                              .family = "mistral",
                              .default_kv_heads = 8,
                              .default_max_positions = 131072});
  ParseRope(config, spec);
  // A file without the field has the window of the first Mistral; null means none.
  const bool given = config.json().contains("sliding_window");
  const int64_t window = given ? config.Int("sliding_window", 1, INT32_MAX, 0) : 4096;
  spec.windows.assign(static_cast<size_t>(spec.layers), window);
  const std::vector<int64_t> by_layer = ParseLayerTypes(config, spec.layers, window);
  if (!by_layer.empty() && by_layer != spec.windows) {
    config.Refuse("layer_types", "expected the same attention in all layers");
  }
  model.sources = LlamaSources(spec, {});
  return model;
}

}  // namespace runahead
