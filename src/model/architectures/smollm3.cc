// SmolLM3: Llama whose every fourth layer has no rope.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {
namespace {

/// `no_rope_layers` has 1 for a layer with rope and 0 for one without.
std::vector<LayerRope> ParseRopeLayers(const JsonObject& config, int layers) {
  std::vector<LayerRope> ropes;
  if (!config.Has("no_rope_layers")) {
    const int64_t interval = config.Int("no_rope_layer_interval", 1, INT32_MAX, 4);
    for (int i = 0; i < layers; ++i) ropes.push_back((i + 1) % interval != 0 ? LayerRope::kMain : LayerRope::kNone);
    return ropes;
  }
  const Json& given = config.At("no_rope_layers");
  const std::string expected = fmt::format("expected {} numbers, each 0 or 1", layers);
  if (!given.is_array() || given.size() != static_cast<size_t>(layers)) config.Refuse("no_rope_layers", expected);
  for (const Json& has_rope : given) {
    if (has_rope != 0 && has_rope != 1) config.Refuse("no_rope_layers", expected);
    ropes.push_back(has_rope == 1 ? LayerRope::kMain : LayerRope::kNone);
  }
  return ropes;
}

}  // namespace

ParsedModel ParseSmolLm3(const JsonObject& config) {
  RefuseUnsupported(config, {"sliding_window", "no_rope_layers", "no_rope_layer_interval"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "SmolLM3ForCausalLM",
                              .family = "smollm3",
                              .default_kv_heads = 4,
                              .default_max_positions = 32768,
                              .default_tied_head = true});
  ParseRope(config, spec, {.default_theta = 2e6});
  spec.layer_ropes = ParseRopeLayers(config, spec.layers);
  const bool sliding = config.Bool("use_sliding_window", false) && config.Has("sliding_window");
  const int64_t window = sliding ? config.Int("sliding_window", 1, INT32_MAX) : 0;
  spec.windows = ParseLayerTypes(config, spec.layers, window);
  if (spec.windows.empty() && sliding) {
    for (const LayerRope rope : spec.layer_ropes) spec.windows.push_back(rope == LayerRope::kNone ? window : 0);
  }
  const bool attention_bias = config.Bool("attention_bias", false);
  model.sources =
      LlamaSources(spec, {.qkv = attention_bias, .out = attention_bias, .mlp = config.Bool("mlp_bias", false)});
  return model;
}

}  // namespace runahead
