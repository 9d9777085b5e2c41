// Baichuan 1 and 2: Llama with q, k, v in one matrix; the second's head has rows of length 1; those of 13B have ALiBi
// in place of a rope.
#include <fmt/format.h>

#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseBaichuan(const JsonObject& config) {
  constexpr int64_t kFirstVocab = 64000;  // Baichuan 1, whose head is a plain matrix
  RefuseUnsupported(config, {});
  const bool has_rope = config.Has("max_position_embeddings");
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "BaichuanForCausalLM",
                              .family = "baichuan",
                              .max_positions = has_rope ? "max_position_embeddings" : "model_max_length",
                              .default_max_positions = 4096});
  RequireWholeHeads(config, spec);
  if (has_rope) {
    ParseRope(config, spec);
  } else {
    spec.alibi_slopes = AlibiSlopes(spec.q_heads);
  }
  model.sources = LlamaSources(spec, {});
  model.sources.head.unit_rows = spec.vocab != kFirstVocab;
  for (int i = 0; i < spec.layers; ++i) {
    const int64_t h = spec.hidden;
    const MatrixSource fused = WholeMatrix(fmt::format("model.layers.{}.self_attn.W_pack", i), 3 * h, h, false);
    model.sources.layers[static_cast<size_t>(i)].qkv = {{RowsOf(fused, 0, h)}, {RowsOf(fused, h, 3 * h)}};
  }
  return model;
}

}  // namespace runahead
