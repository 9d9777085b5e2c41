// EXAONE 4: Llama with norms behind attention and MLP, a norm on every head of q and k, and in its larger one windows
// in three of four layers, where the others have no rope.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {
namespace {

/// `sliding_window_pattern` may be a number, or letters that repeat: L for a window and G for none.
std::vector<int64_t> ParseWindows(const JsonObject& config, int layers) {
  constexpr const char* kPattern = "sliding_window_pattern";
  const bool letters = config.Has(kPattern) && config.At(kPattern).is_string();
  if (!letters) {
    return ParsePatternWindows(config, layers, 4096, config.Int(kPattern, 0, INT32_MAX, 4));
  }
  const std::string pattern = config.String(kPattern);
  if (pattern.empty() || pattern.find_first_not_of("LG") != std::string::npos) {
    config.Refuse(kPattern, "expected letters L and G, or a number");
  }
  std::vector<int64_t> windows = ParsePatternWindows(config, layers, 4096, INT32_MAX);
  for (size_t i = 0; i < windows.size() && !config.Has("layer_types"); ++i) {
    if (pattern[i % pattern.size()] == 'G') windows[i] = 0;
  }
  return windows;
}

}  // namespace

ParsedModel ParseExaone4(const JsonObject& config) {
  RefuseUnsupported(config, {"sliding_window"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "Exaone4ForCausalLM",
                              .family = "exaone4",
                              .default_kv_heads = 32,
                              .default_max_positions = 2048,
                              .default_norm_epsilon = 1e-5});
  ParseRope(config, spec);
  spec.windows = ParseWindows(config, spec.layers);
  const bool hybrid = config.Has("sliding_window") || !config.json().contains("sliding_window");
  for (const int64_t window : spec.windows) {
    spec.layer_ropes.push_back(hybrid && window == 0 ? LayerRope::kNone : LayerRope::kMain);
  }
  model.sources = LlamaSources(spec, {});
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = model.sources.layers[static_cast<size_t>(i)];
    const std::string prefix = fmt::format("model.layers.{}.", i);
    layer.attention_norm.reset();
    layer.mlp_norm.reset();
    layer.q_norm = NormSource{prefix + "self_attn.q_norm", spec.head_dim, false};
    layer.k_norm = NormSource{prefix + "self_attn.k_norm", spec.head_dim, false};
    layer.post_attention_norm = NormSource{prefix + "post_attention_layernorm", spec.hidden, false};
    layer.post_mlp_norm = NormSource{prefix + "post_feedforward_layernorm", spec.hidden, false};
  }
  return model;
}

}  // namespace runahead
