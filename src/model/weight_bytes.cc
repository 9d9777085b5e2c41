#include "model/weight_bytes.h"

namespace runahead {
namespace {

size_t BytesOf(int64_t rows, int64_t depth, WeightFormat format, DType stored) {
  const size_t row = format == WeightFormat::kStored ? static_cast<size_t>(depth) * SizeOf(stored)
                                                     : QuantisedRowBytes(format, depth);
  return static_cast<size_t>(rows) * row;
}

/// The MLP of a layer, or all its experts.
size_t MlpBytes(const DecoderSpec& spec, int layer, WeightFormat format, DType stored) {
  const auto mlp = [&](int64_t ffn) {
    return BytesOf((spec.mlp_matrices() - 1) * ffn, spec.hidden, format, stored) +
           BytesOf(spec.hidden, ffn, format, stored);
  };
  if (!spec.mixes(layer)) return mlp(spec.ffn);
  const MixtureSpec& mixture = spec.mixture;
  return BytesOf(mixture.scores(), spec.hidden, WeightFormat::kStored, stored) +
         static_cast<size_t>(mixture.experts) * mlp(mixture.ffn) + mlp(mixture.shared_ffn);
}

}  // namespace

WeightBytes WeightBytesOf(const DecoderSpec& spec, WeightFormat format, DType stored) {
  const size_t attention = BytesOf(spec.q_features() + 2 * spec.kv_features(), spec.hidden, format, stored) +
                           BytesOf(spec.hidden, spec.q_features(), format, stored);
  size_t layers = 0;
  for (int layer = 0; layer < spec.layers; ++layer) layers += attention + MlpBytes(spec, layer, format, stored);
  return {layers, BytesOf(spec.vocab, spec.hidden, HeadFormat(format), stored)};
}

}  // namespace runahead
