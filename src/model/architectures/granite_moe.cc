// Granite 3 with mixtures of experts: each layer's are two tensors of all of them; the shared kind has one more
// expert, which all rows go through.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {
namespace {

MatrixSource FusedMatrix(const std::string& name, int64_t matrices, int64_t rows, int64_t columns, int64_t index) {
  MatrixSource matrix = WholeMatrix(name, matrices * rows, columns, false);
  matrix.matrices = matrices;
  return RowsOf(matrix, index * rows, (index + 1) * rows);
}

/// gate and up of a tensor [..., 2 * ffn, hidden].
StackedSource Halves(const MatrixSource& both) {
  const int64_t middle = (both.begin + both.end) / 2;
  return {RowsOf(both, both.begin, middle), RowsOf(both, middle, both.end)};
}

ParsedModel ParseGraniteWithExperts(const JsonObject& config, std::string_view architecture, std::string_view family,
                                    int64_t shared_ffn) {
  RefuseUnsupported(config, {"residual_multiplier", "embedding_multiplier", "attention_multiplier", "logits_scaling",
                             "num_local_experts"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = architecture, .family = family, .default_max_positions = 2048});
  ParseRope(config, spec);
  ScaleAsGranite(config, spec);
  spec.mixture = ParseMixture(
      config, spec, {.experts = "num_local_experts", .default_experts = 8, .default_chosen = 2, .ffn = nullptr});
  spec.mixture.renormalise = true;
  spec.mixture.shared_ffn = shared_ffn;
  const bool attention_bias = config.Bool("attention_bias", false);
  model.sources = LlamaSources(spec, {.qkv = attention_bias, .out = attention_bias});
  const int64_t experts = spec.mixture.experts;
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = model.sources.layers[static_cast<size_t>(i)];
    const std::string prefix = fmt::format("model.layers.{}.", i);
    const std::string mixture = prefix + "block_sparse_moe.";
    layer.gate_up.clear();
    layer.down.clear();
    MixtureSource& source = layer.mixture.emplace();
    source.router = {WholeMatrix(mixture + "router.layer", experts, spec.hidden, false)};
    for (int64_t e = 0; e < experts; ++e) {
      source.experts.push_back({Halves(FusedMatrix(mixture + "input_linear", experts, 2 * spec.ffn, spec.hidden, e)),
                                {FusedMatrix(mixture + "output_linear", experts, spec.hidden, spec.ffn, e)}});
    }
    if (shared_ffn == 0) continue;
    const std::string shared = prefix + "shared_mlp.";
    source.experts.push_back({Halves(WholeMatrix(shared + "input_linear", 2 * shared_ffn, spec.hidden, false)),
                              {WholeMatrix(shared + "output_linear", spec.hidden, shared_ffn, false)}});
  }
  return model;
}

}  // namespace

ParsedModel ParseGraniteMoe(const JsonObject& config) {
  return ParseGraniteWithExperts(config, "GraniteMoeForCausalLM", "granitemoe", 0);
}

ParsedModel ParseGraniteMoeShared(const JsonObject& config) {
  const int64_t shared_ffn = config.Int("shared_intermediate_size", 0, INT32_MAX, 0);
  return ParseGraniteWithExperts(config, "GraniteMoeSharedForCausalLM", "granitemoeshared", shared_ffn);
}

}  // namespace runahead
