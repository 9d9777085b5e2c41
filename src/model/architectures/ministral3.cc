// Ministral 3: Mistral whose queries grow with their position; and the text part of Mistral 3 folders, which is a
// Mistral (Mistral Small 3.1) or a Ministral 3.
#include <cmath>

#include "model/architectures/common.h"

namespace runahead {

ParsedModel ParseMinistral3(const JsonObject& given) {
  RefuseUnsupported(given, {"sliding_window"});
  Json known = given.json();
  if (!given.Has("rope_parameters") && !given.Has("rope_scaling")) {
    known["rope_parameters"] = {{"rope_type", "yarn"},
                                {"rope_theta", 1e6},
                                {"factor", 16.0},
                                {"original_max_position_embeddings", 16384},
                                {"mscale", 1.0},
                                {"mscale_all_dim", 1.0},
                                {"llama_4_scaling_beta", 0.1}};
  }
  const JsonObject config(known, given.origin());
  ParsedModel model;
  DecoderSpec& spec = model.spec;
  spec = ParseCommon(config, {.architecture = "Ministral3ForCausalLM",
                              .family = "ministral3",
                              .default_kv_heads = 8,
                              .default_head_dim = 128,
                              .default_max_positions = 262144,
                              .default_norm_epsilon = 1e-5});
  ParseRope(config, spec);
  const JsonObject rope = config.Object(config.Has("rope_scaling") ? "rope_scaling" : "rope_parameters");
  spec.query_growth = static_cast<float>(rope.Number("llama_4_scaling_beta", 0));
  spec.query_growth_positions = rope.Int("original_max_position_embeddings", 1, INT32_MAX, spec.max_positions);
  if (config.Has("sliding_window")) {
    spec.windows.assign(static_cast<size_t>(spec.layers), config.Int("sliding_window", 1, INT32_MAX));
  }
  model.sources = LlamaSources(spec, {});
  return model;
}

ParsedModel ParseMistral3(const JsonObject& config) {
  Json text = TextConfig(config);
  text.emplace("sliding_window", nullptr);
  text.emplace("head_dim", 128);
  text.emplace("tie_word_embeddings", true);  // files with a head are believed
  const JsonObject object(text, config.origin() + ": text_config");
  const std::string type = object.String("model_type", "mistral");
  if (type != "mistral" && type != "ministral3") object.Refuse("model_type", "expected mistral or ministral3");
  ParsedModel model = type == "mistral" ? ParseMistral(object) : ParseMinistral3(object);
  model.spec.architecture = "Mistral3ForConditionalGeneration";
  model.spec.family = "mistral3";
  return model;
}

}  // namespace runahead
