// Command-R: attention and MLP side by side behind one layer norm without bias, a rope that turns neighbours, scaled
// logits, and in Command-R+ a norm of its own for every head. Command-R7B has windows in three of four layers, and no
// rope in the others.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {
namespace {

WeightSources CohereSources(const JsonObject& config, DecoderSpec& spec) {
  spec.order = BlockOrder::kParallel;
  spec.final_norm_scale = static_cast<float>(ParsePositive(config, "logit_scale", 0.0625));
  const bool attention_bias = config.Bool("attention_bias", false);
  WeightSources sources = LlamaSources(spec, {.qkv = attention_bias, .out = attention_bias});
  for (LayerSource& layer : sources.layers) layer.mlp_norm.reset();
  return sources;
}

CommonFields CohereFields(std::string_view architecture, std::string_view family) {
  return {.architecture = architecture,
          .family = family,
          .default_max_positions = 8192,
          .norm_epsilon = "layer_norm_eps",
          .default_norm_epsilon = 1e-5,
          .default_tied_head = true,
          .norm = NormKind::kLayer};
}

}  // namespace

ParsedModel ParseCohere(const JsonObject& config) {
  RefuseUnsupported(config, {"logit_scale", "use_qk_norm"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, CohereFields("CohereForCausalLM", "cohere"));
  ParseRope(config, spec, {.default_theta = 5e5});
  model.sources = CohereSources(config, spec);
  for (int i = 0; i < spec.layers && config.Bool("use_qk_norm", false); ++i) {
    LayerSource& layer = model.sources.layers[static_cast<size_t>(i)];
    const std::string attention = fmt::format("model.layers.{}.self_attn.", i);
    layer.q_norm = NormSource{attention + "q_norm", spec.q_features(), false, 1, spec.q_heads};
    layer.k_norm = NormSource{attention + "k_norm", spec.kv_features(), false, 1, spec.kv_heads};
  }
  PairHeads(spec, model.sources);
  return model;
}

ParsedModel ParseCohere2(const JsonObject& config) {
  RefuseUnsupported(config, {"logit_scale", "sliding_window"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, CohereFields("Cohere2ForCausalLM", "cohere2"));
  RequireWholeHeads(config, spec);
  ParseRope(config, spec);
  const int64_t pattern = config.Int("sliding_window_pattern", 1, INT32_MAX, 4);
  spec.windows = ParsePatternWindows(config, spec.layers, 4096, pattern);
  for (const int64_t window : spec.windows) {
    spec.layer_ropes.push_back(window == 0 ? LayerRope::kNone : LayerRope::kMain);
  }
  model.sources = CohereSources(config, spec);
  PairHeads(spec, model.sources);
  return model;
}

}  // namespace runahead
