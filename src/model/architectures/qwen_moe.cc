// Qwen2-MoE and Qwen3-MoE: Qwen2 and Qwen3 with mixtures of experts, the first with an expert that all rows go
// through.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {
namespace {

constexpr const char* kSharedFfn = "shared_expert_intermediate_size";

/// The windows of Qwen2-MoE: in every second of the first layers where they are switched on.
std::vector<int64_t> ParseQwen2MoeWindows(const JsonObject& config, int layers) {
  if (!config.Bool("use_sliding_window", false)) return {};
  const int64_t window = config.Int("sliding_window", 1, INT32_MAX, 4096);
  std::vector<int64_t> windows = ParseLayerTypes(config, layers, window);
  if (!windows.empty()) return windows;
  const int64_t end = config.Int("max_window_layers", 0, INT32_MAX, 28);
  for (int64_t layer = 0; layer < layers; ++layer) windows.push_back(layer % 2 == 0 && layer < end ? window : 0);
  return windows;
}

void AddSharedExperts(const DecoderSpec& spec, WeightSources& sources) {
  const int64_t ffn = spec.mixture.shared_ffn;
  for (int i = 0; i < spec.layers; ++i) {
    if (!spec.mixes(i)) continue;
    MixtureSource& mixture = *sources.layers[static_cast<size_t>(i)].mixture;
    const std::string prefix = fmt::format("model.layers.{}.mlp.shared_expert", i);
    mixture.router.push_back(WholeMatrix(prefix + "_gate", 1, spec.hidden, false));
    mixture.experts.push_back({{WholeMatrix(prefix + ".gate_proj", ffn, spec.hidden, false),
                                WholeMatrix(prefix + ".up_proj", ffn, spec.hidden, false)},
                               {WholeMatrix(prefix + ".down_proj", spec.hidden, ffn, false)}});
  }
}

}  // namespace

ParsedModel ParseQwen2Moe(const JsonObject& config) {
  RefuseUnsupported(config, {"sliding_window", "num_experts"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "Qwen2MoeForCausalLM",
                              .family = "qwen2_moe",
                              .default_kv_heads = 16,
                              .default_max_positions = 32768});
  ParseRope(config, spec);
  spec.windows = ParseQwen2MoeWindows(config, spec.layers);
  spec.mixture = ParseMixture(config, spec, {.default_experts = 60, .default_chosen = 4, .default_ffn = 1408});
  spec.mixture.renormalise = config.Bool("norm_topk_prob", false);
  spec.mixture.shared_ffn = config.Int(kSharedFfn, 1, INT32_MAX, 5632);
  spec.mixture.gated_shared = true;
  ParseQwenMixtureLayers(config, spec);
  model.sources = LlamaSources(spec, {.qkv = config.Bool("qkv_bias", true)});
  MixLayers(spec, {}, model.sources);
  AddSharedExperts(spec, model.sources);
  return model;
}

ParsedModel ParseQwen3Moe(const JsonObject& config) {
  RefuseUnsupported(config, {"sliding_window", "num_experts", "num_local_experts"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "Qwen3MoeForCausalLM",
                              .family = "qwen3_moe",
                              .default_kv_heads = 4,
                              .default_max_positions = 32768});
  ParseRope(config, spec);
  if (config.Bool("use_sliding_window", false)) {
    spec.windows = ParsePatternWindows(config, spec.layers, 4096, INT32_MAX);
  }
  spec.mixture = ParseMixture(config, spec,
                              {.experts = config.Has("num_experts") ? "num_experts" : "num_local_experts",
                               .default_experts = 128,
                               .default_chosen = 8,
                               .default_ffn = 768});
  spec.mixture.renormalise = config.Bool("norm_topk_prob", false);
  ParseQwenMixtureLayers(config, spec);
  const bool attention_bias = config.Bool("attention_bias", false);
  model.sources = LlamaSources(spec, {.qkv = attention_bias, .out = attention_bias});
  NormHeads(spec, model.sources);
  MixLayers(spec, {}, model.sources);
  return model;
}

}  // namespace runahead
