// DeepSeek-V2 and V3: multi-head latent attention, some plain layers first, then mixtures with experts that all rows
// go through.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/architectures/common.h"

namespace runahead {
namespace {

constexpr int64_t kMostHeadDim = 4096;
constexpr int64_t kMostFeatures = int64_t{1} << 20;

/// The factor on scores that YaRN's mscale_all_dim asks for, beside the one on cosines and sines.
double YarnScaleOfScores(const JsonObject& config) {
  const bool old_form = config.Has("rope_scaling") && !config.At("rope_scaling").empty();
  const char* key = old_form ? "rope_scaling" : "rope_parameters";
  if (!config.Has(key)) return 1;
  const JsonObject rope = config.Object(key);
  if (rope.String(rope.Has("rope_type") ? "rope_type" : "type", "default") == "default") return 1;
  const double scale = rope.Number("mscale_all_dim", 0);
  if (scale == 0) return 1;
  const double magnitude = YarnMagnitude(rope.Number("factor"), scale);
  return magnitude * magnitude;
}

/// Sizes, rope and scale of the attention, into a spec whose other fields are known.
void ParseLatentAttention(const JsonObject& config, DecoderSpec& spec) {
  LatentSpec& latent = spec.latent;
  latent.rank = config.Int("kv_lora_rank", 1, kMostFeatures, 512);
  const bool has_query_rank = !config.json().contains("q_lora_rank") || config.Has("q_lora_rank");
  if (has_query_rank) latent.query_rank = config.Int("q_lora_rank", 1, kMostFeatures, 1536);
  latent.plain_dim = config.Int("qk_nope_head_dim", 1, kMostHeadDim, 128);
  latent.value_dim = config.Int("v_head_dim", 1, kMostHeadDim, 128);
  spec.qk_norm = QkNorm::kRow;
  spec.kv_heads = 1;
  const int64_t widest = std::max({latent.rank, spec.query_dim(), latent.plain_dim + latent.value_dim});
  if (widest * spec.q_heads > 64 * kMostFeatures) {
    config.Refuse("num_attention_heads", fmt::format("expected fewer with kv_lora_rank {}", latent.rank));
  }
  ParseRope(config, spec);
  const double scale = YarnScaleOfScores(config) / std::sqrt(static_cast<double>(spec.query_dim()));
  spec.attention_scale = static_cast<float>(scale);
}

/// The tensors of the attention; `paired` heads turn in pairs of neighbours.
void NameLatentAttention(const DecoderSpec& spec, bool biases, bool paired, WeightSources& sources) {
  constexpr float kLatentEpsilon = 1e-6F;  // of norms of latent vectors, whatever rms_norm_eps is
  const LatentSpec& latent = spec.latent;
  const int64_t turning = spec.head_dim;
  const PairedHeads query_pairs{spec.query_dim(), paired ? turning : 0, latent.plain_dim};
  // Of all heads what turns, then of all heads the rest.
  const auto queries = [&](const std::string& name, int64_t columns) -> StackedSource {
    MatrixSource rest = WholeMatrix(name, spec.q_heads * spec.query_dim(), columns, false);
    rest.paired = query_pairs;
    rest.blocks = spec.q_heads;
    rest.stride = spec.query_dim();
    return {RowsOf(rest, latent.plain_dim, spec.query_dim()), RowsOf(rest, 0, latent.plain_dim)};
  };
  for (int i = 0; i < spec.layers; ++i) {
    LayerSource& layer = sources.layers[static_cast<size_t>(i)];
    const std::string attention = fmt::format("model.layers.{}.self_attn.", i);
    MatrixSource key_values = WholeMatrix(attention + "kv_a_proj_with_mqa", spec.kv_columns(), spec.hidden, biases);
    key_values.paired = {spec.kv_columns(), paired ? turning : 0, latent.rank};
    const int64_t expanded = spec.q_heads * (latent.plain_dim + latent.value_dim);
    LatentSource& maps = layer.latent.emplace();
    maps.expand = WholeMatrix(attention + "kv_b_proj", expanded, latent.rank, false);
    if (latent.query_rank > 0) {
      layer.qkv[0] = {WholeMatrix(attention + "q_a_proj", latent.query_rank, spec.hidden, biases)};
      layer.q_norm = NormSource{.name = attention + "q_a_layernorm", .features = latent.query_rank};
      layer.q_norm->epsilon = kLatentEpsilon;
      maps.queries = queries(attention + "q_b_proj", latent.query_rank);
    } else {
      layer.qkv[0] = queries(attention + "q_proj", spec.hidden);
    }
    layer.qkv[1] = {key_values};
    layer.k_norm = NormSource{.name = attention + "kv_a_layernorm", .features = latent.rank};
    layer.k_norm->epsilon = kLatentEpsilon;
    layer.out = {WholeMatrix(attention + "o_proj", spec.hidden, spec.attended_columns(), biases)};
  }
}

/// A number from 1 to `most`, which must be there unless `otherwise` is a number.
int64_t IntOr(const JsonObject& config, const char* key, int64_t most, int64_t otherwise) {
  return otherwise == 0 ? config.Int(key, 1, most) : config.Int(key, 1, most, otherwise);
}

/// What V2 and V3 differ in.
struct Version {
  CommonFields fields;
  int64_t experts;
  int64_t chosen;  // 0: the field must be there
  int64_t ffn;
  int64_t shared;
  int64_t plain_layers;
  double scale;
  const char* scoring;
};

/// The mixture, and the layers that have it.
void ParseExperts(const JsonObject& config, const Version& version, DecoderSpec& spec) {
  if (config.Int("moe_layer_freq", 1, INT32_MAX, 1) != 1) config.Refuse("moe_layer_freq", "expected 1");
  if (config.String("scoring_func", version.scoring) != version.scoring) {
    config.Refuse("scoring_func", fmt::format("expected {}", version.scoring));
  }
  (void)IntOr(config, "num_experts_per_tok", kMostFeatures, version.chosen);
  MixtureSpec& mixture = spec.mixture;
  mixture = ParseMixture(config, spec,
                         {.experts = "n_routed_experts",
                          .default_experts = version.experts,
                          .default_chosen = version.chosen,
                          .default_ffn = version.ffn});
  const int64_t shared = config.Int("n_shared_experts", 1, kMostFeatures, version.shared);
  if (shared * mixture.ffn > kMostFeatures) {
    config.Refuse("n_shared_experts", fmt::format("expected at most {} features in all", kMostFeatures));
  }
  mixture.shared_ffn = shared * mixture.ffn;
  mixture.routing.scale = static_cast<float>(ParsePositive(config, "routed_scaling_factor", version.scale));
  const int64_t plain = config.Int("first_k_dense_replace", 0, INT32_MAX, version.plain_layers);
  if (plain >= spec.layers) {
    mixture = {};
  } else if (plain > 0) {
    for (int layer = 0; layer < spec.layers; ++layer) mixture.layers.push_back(layer >= plain);
  }
}

/// The groups of experts, of which rows choose some.
void ParseGroups(const JsonObject& config, int64_t groups, int64_t chosen, MixtureSpec& mixture) {
  if (mixture.experts == 0) return;
  Routing& routing = mixture.routing;
  routing.groups = IntOr(config, "n_group", mixture.experts, groups);
  if (mixture.experts % routing.groups != 0) {
    config.Refuse("n_group", fmt::format("expected a divisor of n_routed_experts {}", mixture.experts));
  }
  routing.chosen_groups = IntOr(config, "topk_group", routing.groups, chosen);
  const int64_t size = mixture.experts / routing.groups;
  if (routing.group_best > size) {
    config.Refuse("n_group", fmt::format("expected groups of {} experts at least", routing.group_best));
  }
  if (routing.chosen_groups * size < mixture.chosen) {
    config.Refuse("topk_group", fmt::format("expected groups of num_experts_per_tok {} experts", mixture.chosen));
  }
}

ParsedModel ParseDeepseek(const JsonObject& config, Version version) {
  RefuseUnsupported(config, {"n_routed_experts", "num_experts", "num_local_experts"});
  ParsedModel model;
  version.fields.default_head_dim = config.Int("qk_rope_head_dim", 2, kMostHeadDim, 64);
  model.spec = ParseCommon(config, version.fields);
  model.spec.head_dim = version.fields.default_head_dim;
  if (model.spec.head_dim % 2 != 0) config.Refuse("qk_rope_head_dim", "expected an even number");
  ParseLatentAttention(config, model.spec);
  ParseExperts(config, version, model.spec);
  return model;
}

void NameTensors(const JsonObject& config, bool mlp_biases, bool paired, ParsedModel& model) {
  const DecoderSpec& spec = model.spec;
  model.sources = LlamaSources(spec, {.mlp = mlp_biases});
  NameLatentAttention(spec, config.Bool("attention_bias", false), paired, model.sources);
  MixLayers(spec, {}, model.sources);
  const int64_t ffn = spec.mixture.shared_ffn;
  for (int i = 0; i < spec.layers; ++i) {
    if (!spec.mixes(i)) continue;
    MixtureSource& mixture = *model.sources.layers[static_cast<size_t>(i)].mixture;
    const std::string shared = fmt::format("model.layers.{}.mlp.shared_experts.", i);
    mixture.experts.push_back({{WholeMatrix(shared + "gate_proj", ffn, spec.hidden, mlp_biases),
                                WholeMatrix(shared + "up_proj", ffn, spec.hidden, mlp_biases)},
                               {WholeMatrix(shared + "down_proj", spec.hidden, ffn, mlp_biases)}});
  }
}

}  // namespace

ParsedModel ParseDeepseekV2(const JsonObject& config) {
  ParsedModel model = ParseDeepseek(
      config,
      {.fields = {.architecture = "DeepseekV2ForCausalLM", .family = "deepseek_v2", .default_max_positions = 2048},
       .experts = 64,
       .chosen = 0,
       .ffn = 1407,
       .shared = 2,
       .plain_layers = 0,
       .scale = 1,
       .scoring = "softmax"});
  // transformers knows norm_topk_prob, and weighs as if it were false.
  const std::string method = config.String("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    ParseGroups(config, 0, 0, model.spec.mixture);
  } else if (method != "greedy") {
    config.Refuse("topk_method", "expected greedy or group_limited_greedy");
  }
  NameTensors(config, config.Bool("mlp_bias", false), true, model);
  return model;
}

ParsedModel ParseDeepseekV3(const JsonObject& config) {
  ParsedModel model = ParseDeepseek(
      config,
      {.fields = {.architecture = "DeepseekV3ForCausalLM", .family = "deepseek_v3", .default_max_positions = 4096},
       .experts = 256,
       .chosen = 8,
       .ffn = 2048,
       .shared = 1,
       .plain_layers = 3,
       .scale = 2.5,
       .scoring = "sigmoid"});
  if (config.String("topk_method", "noaux_tc") != "noaux_tc") config.Refuse("topk_method", "expected noaux_tc");
  MixtureSpec& mixture = model.spec.mixture;
  mixture.renormalise = config.Bool("norm_topk_prob", true);
  mixture.routing.logistic = true;
  mixture.routing.group_best = 2;
  ParseGroups(config, 8, 4, mixture);
  NameTensors(config, false, config.Bool("rope_interleave", true), model);
  for (int i = 0; i < model.spec.layers; ++i) {
    if (!model.spec.mixes(i)) continue;
    model.sources.layers[static_cast<size_t>(i)].mixture->choice_bias =
        VectorSource{fmt::format("model.layers.{}.mlp.gate.e_score_correction_bias", i), mixture.experts};
  }
  return model;
}

}  // namespace runahead
