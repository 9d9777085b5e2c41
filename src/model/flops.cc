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

/// Multiplications and additions of one row in one layer.
struct RowFlops {
  double keys_values;
  double others;
};

RowFlops RowFlopsOf(const DecoderSpec& spec, int layer) {
  const AttentionSize size = spec.attention_size();
  const int64_t mlp = spec.hidden * spec.mlp_weights(layer).active;
  return {.keys_values = 2 * static_cast<double>(size.key_value_weights),
          .others = 2 * static_cast<double>(size.query_weights + size.out_weights + mlp)};
}

double HeadFlops(const DecoderSpec& spec) {
  return 2 * static_cast<double>(spec.hidden) * static_cast<double>(spec.vocab);
}

double AttentionFlops(const DecoderSpec& spec, int layer, int64_t begin, int64_t end) {
  return 2 * static_cast<double>(spec.attention_size().pair_products) * VisiblePairs(begin, end, spec.window(layer));
}

/// The same of a whole prompt, in the way that is less work.
double LeastAttentionFlops(const DecoderSpec& spec, int layer, int64_t tokens) {
  if (!spec.is_latent() || !ExpandingIsLess(spec, 0, tokens)) return AttentionFlops(spec, layer, 0, tokens);
  return 2 * static_cast<double>(spec.expanded_pair_products()) * VisiblePairs(0, tokens, spec.window(layer));
}

}  // namespace

double VisiblePairs(int64_t begin, int64_t end, int64_t window) {
  CHECK(0 <= begin && begin <= end);
  return PairsUpTo(end, window) - PairsUpTo(begin, window);
}

ModelFlops ChunkFlops(const DecoderSpec& spec, int64_t begin, int64_t end, LastLayer last_layer) {
  const auto n = static_cast<double>(end - begin);
  const int last = spec.layers - 1;
  ModelFlops flops;
  for (int layer = 0; layer < last; ++layer) {
    const RowFlops row = RowFlopsOf(spec, layer);
    flops += {.linear = n * (row.keys_values + row.others), .attention = AttentionFlops(spec, layer, begin, end)};
  }
  const RowFlops row = RowFlopsOf(spec, last);
  flops.linear += n * row.keys_values;
  if (last_layer == LastLayer::kLastRow && end > begin) {
    flops += {.linear = row.others + HeadFlops(spec), .attention = AttentionFlops(spec, last, end - 1, end)};
  }
  return flops;
}

ModelFlops PromptFlops(const DecoderSpec& spec, int64_t tokens) {
  ModelFlops flops{.linear = HeadFlops(spec)};
  for (int layer = 0; layer < spec.layers; ++layer) {
    const RowFlops row = RowFlopsOf(spec, layer);
    flops += {.linear = static_cast<double>(tokens) * (row.keys_values + row.others),
              .attention = LeastAttentionFlops(spec, layer, tokens)};
  }
  return flops;
}

bool ExpandingIsLess(const DecoderSpec& spec, int64_t begin, int64_t end) {
  const auto& [rank, query_rank, plain, value] = spec.latent;
  const double rows = static_cast<double>(end - begin);
  const double pairs = VisiblePairs(begin, end, 0);
  const auto maps = static_cast<double>(rank * (plain + value));
  const double expanding =
      static_cast<double>(end) * maps + pairs * static_cast<double>(plain + spec.head_dim + value);
  const double widening = rows * maps + pairs * static_cast<double>(2 * rank + spec.head_dim);
  return expanding < widening;
}

}  // namespace runahead
