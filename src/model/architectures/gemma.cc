// Gemma 1: Llama with wide heads, norms whose weights lie around 0 and embeddings scaled by the root of their width.
#include <cmath>

#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseGemma(const JsonObject& config) {
  RefuseUnsupported(config, {});
  // The first files say "gelu" and mean its approximation; later ones have a field of their own.
  const bool newer = config.Has("hidden_activation");
  Json known = config.json();
  if (!newer && config.String("hidden_act", "gelu") == "gelu") known["hidden_act"] = "gelu_pytorch_tanh";
  const JsonObject object(known, config.origin());
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(object, {.architecture = "GemmaForCausalLM",
                              .family = "gemma",
                              .default_kv_heads = 16,
                              .default_head_dim = 256,
                              .default_max_positions = 8192,
                              .activation = newer ? "hidden_activation" : "hidden_act",
                              .default_tied_head = true});
  ParseRope(object, spec);
  spec.norm_offset = 1;
  spec.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(spec.hidden)));
  spec.rounded_embedding_scale = true;
  const bool attention_bias = config.Bool("attention_bias", false);
  model.sources = LlamaSources(spec, {.qkv = attention_bias, .out = attention_bias});
  return model;
}

}  // namespace runahead
