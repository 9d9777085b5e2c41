#include "plan/work_shape.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/check.h"

namespace runahead {
namespace {

/// Pairs of the queries [0, end).
int64_t PairsUpTo(int64_t end, int64_t window) {
  const int64_t growing = window == 0 ? end : std::min(end, window);
  return growing * (growing + 1) / 2 + (end - growing) * window;
}

}  // namespace

std::vector<LayersOfWindow> WorkShape::FirstLayers(int count) const {
  if (windows.empty()) return {{0, count}};
  std::vector<LayersOfWindow> all;
  for (int layer = 0; layer < count; ++layer) {
    const auto known =
        std::find_if(all.begin(), all.end(), [&](const auto& one) { return one.window == window(layer); });
    if (known == all.end()) {
      all.push_back({window(layer), 1});
    } else {
      ++known->layers;
    }
  }
  return all;
}

double WorkShape::KeyValueFlops() const { return 2 * static_cast<double>(attention().key_value_weights); }

double WorkShape::OtherLinearFlops(int layer) const {
  return QueryFlops() + 2 * static_cast<double>(attention().out_weights + hidden * mlp(layer).active);
}

double WorkShape::MeanLinearFlops() const {
  double flops = 0;
  for (int layer = 0; layer < layers; ++layer) flops += LinearFlops(layer);
  return flops / layers;
}

double WorkShape::WeightsOverActive() const {
  double idle = 0;  // weights that a row does not meet
  for (const MlpSize& size : mlps)
    idle += static_cast<double>(hidden) * static_cast<double>(size.total - size.active);
  return 1 + 2 * idle / (layers * MeanLinearFlops());
}

std::string WorkShape::ToString() const {
  std::string text =
      fmt::format("{} layers, hidden {}, {}/{} heads of {}, ffn {} x {}, vocabulary {}, {} bytes", layers, hidden,
                  q_heads, kv_heads, head_dim, mlp_matrices, ffn, vocab, element_bytes);
  if (latent) {
    text += fmt::format(", latent rows of {} by {} weights, queries by {}, results by {}, {} products a pair",
                        latent->row, latent->key_value_weights, latent->query_weights, latent->out_weights,
                        latent->pair_products);
  }
  if (!weight_format.empty()) text += fmt::format(", {} weights", weight_format);
  if (!mlps.empty()) {
    std::vector<std::string> sizes;
    for (const MlpSize& size : mlps) sizes.push_back(fmt::format("{} of {}", size.active, size.total));
    const bool alike = std::equal(sizes.begin() + 1, sizes.end(), sizes.begin());
    text += fmt::format(", experts {}", alike ? sizes.front() : fmt::format("{}", fmt::join(sizes, "/")));
  }
  const bool windowed = std::any_of(windows.begin(), windows.end(), [](int64_t window) { return window != 0; });
  if (windowed) text += fmt::format(", windows {}", fmt::join(windows, "/"));
  return text;
}

int64_t CausalPairs(int64_t begin, int64_t end, int64_t window) {
  CHECK(0 <= begin && begin <= end);
  return PairsUpTo(end, window) - PairsUpTo(begin, window);
}

}  // namespace runahead
