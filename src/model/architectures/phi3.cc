// Phi-3 and Phi-4: Llama with q, k, v in one matrix and gate, up in another, partial rope and LongRoPE.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParsePhi3(const JsonObject& config) {
  RefuseUnsupported(config, {"sliding_window", "partial_rotary_factor"});
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "Phi3ForCausalLM",
                              .family = "phi3",
                              .default_max_positions = 4096,
                              .default_norm_epsilon = 1e-5});
  ParseRope(config, spec, {.partial = true, .yarn_is_longrope = true, .default_trained = 4096});
  if (config.Has("sliding_window")) {
    spec.windows.assign(static_cast<size_t>(spec.layers), config.Int("sliding_window", 1, INT32_MAX));
  }
  model.sources = LlamaSources(spec, {});
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = model.sources.layers[static_cast<size_t>(i)];
    const std::string prefix = fmt::format("model.layers.{}.", i);
    const int64_t q = spec.q_features();
    const int64_t rows = q + 2 * spec.kv_features();
    const MatrixSource fused = WholeMatrix(prefix + "self_attn.qkv_proj", rows, spec.hidden, false);
    layer.qkv = {{RowsOf(fused, 0, q)}, {RowsOf(fused, q, rows)}};
    layer.gate_up = {WholeMatrix(prefix + "mlp.gate_up_proj", 2 * spec.ffn, spec.hidden, false)};
  }
  return model;
}

}  // namespace runahead
