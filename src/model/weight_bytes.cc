#include "model/weight_bytes.h"

namespace runahead {
namespace {

size_t BytesOf(int64_t rows, int64_t depth, WeightFormat format, DType stored) {
  const size_t row = format == WeightFormat::kStored ? static_cast<size_t>(depth) * SizeOf(stored)
                                                     : QuantisedRowBytes(format, depth);
  return static_cast<size_t>(rows) * row;
}

}  // namespace

WeightBytes WeightBytesOf(const DecoderSpec& spec, WeightFormat format, DType stored) {
  const size_t layer = BytesOf(spec.q_features() + 2 * spec.kv_features(), spec.hidden, format, stored) +
                       BytesOf(spec.hidden, spec.q_features(), format, stored) +
                       BytesOf(spec.mlp_in_features(), spec.hidden, format, stored) +
                       BytesOf(spec.hidden, spec.ffn, format, stored);
  return {static_cast<size_t>(spec.layers) * layer, BytesOf(spec.vocab, spec.hidden, HeadFormat(format), stored)};
}

}  // namespace runahead
