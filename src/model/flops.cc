#include "model/flops.h"

#include <algorithm>

namespace runahead {
namespace {

/// Pairs of the queries [0, end).
double PairsUpTo(int64_t end, int64_t window) {
  const auto triangle = [](int64_t n) { return static_cast<double>(n) * static_cast<double>(n + 1) / 2; };
  if (window == 0 || end <= window) return triangle(end);
  return triangle(window) + static_cast<double>(end - window) * static_cast<double>(window);
}

}  // namespace

double VisiblePairs(int64_t begin, int64_t end, int64_t window) {
  CHECK(0 <= begin && begin <= end);
  return PairsUpTo(end, window) - PairsUpTo(begin, window);
}

ModelFlops ChunkFlops(const DecoderSpec& spec, int64_t begin, int64_t end, LastLayer last_layer) {
  const auto hidden = static_cast<double>(spec.hidden);
  const auto q_features = static_cast<double>(spec.q_features());
  const auto kv_features = static_cast<double>(spec.kv_features());
  const double keys_values = 2 * hidden * 2 * kv_features;  // of one row
  const auto mlp = static_cast<double>(spec.mlp_in_features() + spec.ffn);
  const double others = 2 * hidden * (2 * q_features + mlp);  // of one row
  const auto attention = [&](int layer, int64_t first) {
    return 4 * q_features * VisiblePairs(first, end, spec.window(layer));
  };
  const auto n = static_cast<double>(end - begin);
  ModelFlops flops;
  for (int layer = 0; layer < spec.layers - 1; ++layer) {
    flops += {.linear = n * (keys_values + others), .attention = attention(layer, begin)};
  }
  flops.linear += n * keys_values;
  if (last_layer == LastLayer::kLastRow && end > begin) {
    const double head = 2 * hidden * static_cast<double>(spec.vocab);
    flops += {.linear = others + head, .attention = attention(spec.layers - 1, end - 1)};
  }
  return flops;
}

}  // namespace runahead
