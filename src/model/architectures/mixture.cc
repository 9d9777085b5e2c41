// What families with mixtures of experts have in common: fields of config.json, and names of tensors.
#include <fmt/format.h>

#include <utility>

#include "model/architectures/common.h"

namespace runahead {

MixtureSpec ParseMixture(const JsonObject& config, const DecoderSpec& spec, const MixtureFields& fields) {
  constexpr int64_t kMostExperts = 4096;
  constexpr int64_t kMostOfAllLayers = int64_t{1} << 16;
  constexpr int64_t kMostFeatures = int64_t{1} << 20;
  MixtureSpec mixture;
  mixture.experts = config.Int(fields.experts, 1, kMostExperts, fields.default_experts);
  if (mixture.experts * spec.layers > kMostOfAllLayers) {
    config.Refuse(fields.experts, fmt::format("expected at most {} in all layers", kMostOfAllLayers));
  }
  mixture.chosen = config.Int(fields.chosen, 1, kMostExperts, fields.default_chosen);
  if (mixture.chosen > mixture.experts) {
    config.Refuse(fields.chosen, fmt::format("expected at most {} {}", fields.experts, mixture.experts));
  }
  mixture.ffn = fields.ffn == nullptr ? spec.ffn : config.Int(fields.ffn, 1, kMostFeatures, fields.default_ffn);
  return mixture;
}

void ParseQwenMixtureLayers(const JsonObject& config, DecoderSpec& spec) {
  const int64_t step = config.Int("decoder_sparse_step", 1, INT32_MAX, 1);
  std::vector<bool> layers;
  for (int64_t layer = 0; layer < spec.layers; ++layer) layers.push_back((layer + 1) % step == 0);
  if (config.Has("mlp_only_layers")) {
    const Json& plain = config.At("mlp_only_layers");
    if (!plain.is_array()) config.Refuse("mlp_only_layers", "expected a list of layers");
    for (const Json& layer : plain) {
      if (!layer.is_number_unsigned()) config.Refuse("mlp_only_layers", "expected a list of layers");
      if (layer.get<uint64_t>() < layers.size()) layers[layer.get<size_t>()] = false;
    }
  }
  int64_t mixtures = 0;
  for (const bool mixes : layers) mixtures += mixes ? 1 : 0;
  if (mixtures == 0) {
    spec.mixture = {};
  } else if (mixtures < spec.layers) {
    spec.mixture.layers = std::move(layers);
  }
}

void MixLayers(const DecoderSpec& spec, const MixtureNames& names, WeightSources& sources) {
  const MixtureSpec& mixture = spec.mixture;
  for (int i = 0; i < spec.layers; ++i) {
    if (!spec.mixes(i)) continue;
    LayerSource& layer = sources.layers[static_cast<size_t>(i)];
    const std::string prefix = fmt::format("model.layers.{}.", i);
    layer.gate_up.clear();
    layer.down.clear();
    MixtureSource& source = layer.mixture.emplace();
    source.router = {WholeMatrix(prefix + names.router, mixture.experts, spec.hidden, false)};
    for (int64_t e = 0; e < mixture.experts; ++e) {
      const std::string expert = fmt::format("{}{}{}.", prefix, names.experts, e);
      source.experts.push_back({{WholeMatrix(expert + names.gate, mixture.ffn, spec.hidden, false),
                                 WholeMatrix(expert + names.up, mixture.ffn, spec.hidden, false)},
                                {WholeMatrix(expert + names.down, spec.hidden, mixture.ffn, false)}});
    }
  }
}

}  // namespace runahead
