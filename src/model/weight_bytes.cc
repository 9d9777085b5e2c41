#include "model/weight_bytes.h"

namespace runahead {
namespace {

size_t BytesOf(int64_t rows, int64_t depth, WeightFormat format, DType stored) {
  const bool as_stored = FormatFor(format, depth) == WeightFormat::kStored;
  const size_t row = as_stored ? static_cast<size_t>(depth) * SizeOf(stored) : QuantisedRowBytes(format, depth);
  return static_cast<size_t>(rows) * row;
}

/// The MLP of a layer, or its experts.
size_t MlpBytes(const DecoderSpec& spec, int layer, WeightFormat format, DType stored, ExpertsCounted experts) {
  const auto mlp = [&](int64_t ffn) {
    return BytesOf((spec.mlp_matrices() - 1) * ffn, spec.hidden, format, stored) +
           BytesOf(spec.hidden, ffn, format, stored);
  };
  if (!spec.mixes(layer)) return mlp(spec.ffn);
  const MixtureSpec& mixture = spec.mixture;
  return BytesOf(mixture.scores(), spec.hidden, WeightFormat::kStored, stored) +
         static_cast<size_t>(experts == ExpertsCounted::kAll ? mixture.experts : mixture.chosen) * mlp(mixture.ffn) +
         mlp(mixture.shared_ffn);
}

/// The maps between latent vectors and heads, of which those of single heads stay as they are stored.
size_t LatentBytes(const DecoderSpec& spec, WeightFormat format, DType stored) {
  const LatentSpec& latent = spec.latent;
  if (!spec.is_latent()) return 0;
  const size_t queries =
      latent.query_rank > 0 ? BytesOf(spec.q_heads * spec.query_dim(), latent.query_rank, format, stored) : 0;
  return queries +
         BytesOf(spec.q_heads * (latent.plain_dim + latent.value_dim), latent.rank, WeightFormat::kStored, stored);
}

}  // namespace

WeightBytes WeightBytesOf(const DecoderSpec& spec, WeightFormat format, DType stored, ExpertsCounted experts) {
  const size_t attention = BytesOf(spec.query_columns() + spec.kv_columns(), spec.hidden, format, stored) +
                           BytesOf(spec.hidden, spec.attended_columns(), format, stored) +
                           LatentBytes(spec, format, stored);
  size_t layers = 0;
  for (int layer = 0; layer < spec.layers; ++layer)
    layers += attention + MlpBytes(spec, layer, format, stored, experts);
  return {layers, BytesOf(spec.vocab, spec.hidden, HeadFormat(format), stored)};
}

}  // namespace runahead
