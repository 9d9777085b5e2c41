// Qwen2 and Qwen2.5: Llama with biases on q, k and v, and a sliding window in some layers where it is switched on.
#include <algorithm>

#include "model/architectures.h"
#include "model/architectures/common.h"

namespace runahead {

DecoderSpec ParseQwen2(const JsonObject& config) {
  RefuseUnsupported(config, {"sliding_window"});
  DecoderSpec spec = ParseCommon(config, "Qwen2ForCausalLM", {.kv_heads = 32, .max_positions = 32768});
  spec.qkv_bias = true;
  const bool sliding = config.Bool("use_sliding_window", false);
  const bool given = config.json().contains("sliding_window");
  const int64_t window = sliding ? (given ? config.Int("sliding_window", 1, INT32_MAX, 0) : 4096) : 0;
  spec.windows = ParseLayerTypes(config, spec.layers, window);
  if (spec.windows.empty() && window != 0) {
    const int64_t first = config.Int("max_window_layers", 0, INT32_MAX, 28);
    spec.windows.assign(static_cast<size_t>(spec.layers), window);
    std::fill_n(spec.windows.begin(), std::min<int64_t>(first, spec.layers), 0);
  }
  return spec;
}

}  // namespace runahead
