// gpt-oss: windows in every second layer, attention sinks, and mixtures of experts with biases and a clamped gate,
// whose weights may be MXFP4.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {
namespace {

/// The rope, which is YaRN of 32 times 4,096 positions where config.json names none.
void ParseGptOssRope(const JsonObject& config, DecoderSpec& spec) {
  Json json = config.json();
  if (!config.Has("rope_scaling") && !config.Has("rope_parameters")) {
    json["rope_parameters"] = {{"rope_type", "yarn"}, {"factor", 32.0},
                               {"beta_fast", 32.0},   {"beta_slow", 1.0},
                               {"truncate", false},   {"original_max_position_embeddings", 4096}};
  }
  ParseRope(JsonObject(json, config.origin()), spec, {.default_theta = 150000});
}

/// One expert's share of a tensor of all experts' matrices [rows, columns].
MatrixSource ExpertMatrix(const std::string& name, const MixtureSpec& mixture, int64_t expert, int64_t rows,
                          int64_t columns) {
  MatrixSource matrix = WholeMatrix(name, mixture.experts * rows, columns, true);
  matrix.matrices = mixture.experts;
  matrix.layout = MatrixLayout::kBare;
  return RowsOf(matrix, expert * rows, (expert + 1) * rows);
}

}  // namespace

ParsedModel ParseGptOss(const JsonObject& config) {
  RefuseUnsupported(config, {"sliding_window", "num_local_experts", "num_experts", "mxfp4"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "GptOssForCausalLM",
                              .family = "gpt_oss",
                              .default_kv_heads = 8,
                              .default_head_dim = 64,
                              .default_max_positions = 131072,
                              .default_norm_epsilon = 1e-5});
  ParseGptOssRope(config, spec);
  spec.windows = ParsePatternWindows(config, spec.layers, 128, 2);
  spec.sinks = true;
  MixtureSpec& mixture = spec.mixture;
  mixture = ParseMixture(
      config, spec, {.experts = "num_local_experts", .default_experts = 128, .default_chosen = 4, .ffn = nullptr});
  mixture.renormalise = true;
  mixture.clamped.slope = static_cast<float>(ParsePositive(config, "swiglu_alpha", 1.702));
  mixture.clamped.limit = static_cast<float>(ParsePositive(config, "swiglu_limit", 7));
  const bool biases = config.Bool("attention_bias", true);
  model.sources = LlamaSources(spec, {.qkv = biases, .out = biases});
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = model.sources.layers[static_cast<size_t>(i)];
    const std::string prefix = fmt::format("model.layers.{}.", i);
    layer.sinks = VectorSource{prefix + "self_attn.sinks", spec.q_heads};
    layer.gate_up.clear();
    layer.down.clear();
    MixtureSource& source = layer.mixture.emplace();
    source.router = {WholeMatrix(prefix + "mlp.router", mixture.experts, spec.hidden, true)};
    for (int64_t e = 0; e < mixture.experts; ++e) {
      const std::string experts = prefix + "mlp.experts.";
      MatrixSource gate_up = ExpertMatrix(experts + "gate_up_proj", mixture, e, 2 * spec.ffn, spec.hidden);
      gate_up.paired = {2 * spec.ffn, 2 * spec.ffn};  // gate and up take turns
      source.experts.push_back({{gate_up}, {ExpertMatrix(experts + "down_proj", mixture, e, spec.hidden, spec.ffn)}});
    }
  }
  return model;
}

}  // namespace runahead
