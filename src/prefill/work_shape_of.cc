#include "prefill/work_shape_of.h"

namespace runahead {

WorkShape WorkShapeOf(const DecoderSpec& spec, DType compute, WeightFormat format, DType stored,
                      bool expands_latents) {
  WorkShape shape;
  shape.layers = spec.layers;
  shape.hidden = spec.hidden;
  shape.q_heads = spec.q_heads;
  shape.kv_heads = spec.kv_heads;
  shape.head_dim = spec.head_dim;
  shape.ffn = spec.ffn;
  shape.vocab = spec.vocab;
  shape.mlp_matrices = static_cast<int>(spec.mlp_matrices());
  shape.element_bytes = SizeOf(compute);
  shape.weight_bytes = BytesPerWeight(format, stored);
  shape.head_weight_bytes = BytesPerWeight(HeadFormat(format), stored);
  if (format != WeightFormat::kStored) shape.weight_format = Name(format);
  for (int layer = 0; spec.mixture.experts > 0 && layer < spec.layers; ++layer) {
    const MlpWeights weights = spec.mlp_weights(layer);
    shape.mlps.push_back({weights.active, weights.total});
  }
  shape.windows = spec.windows;
  if (spec.is_latent()) {
    const AttentionSize size = spec.attention_size();
    shape.latent = {spec.kv_columns(), size.key_value_weights, size.query_weights, size.out_weights,
                    expands_latents ? spec.expanded_pair_products() : size.pair_products};
  }
  return shape;
}

}  // namespace runahead
