// What the config.json of most families have in common.
#pragma once

#include <initializer_list>
#include <string_view>

#include "base/json.h"
#include "model/decoder_spec.h"

namespace runahead {

/// What a family leaves out of config.json when it has this value (the defaults of HF transformers).
struct ConfigDefaults {
  int64_t kv_heads = 0;  // 0: as many as query heads, which is also what null means
  int64_t max_positions = 0;
  double norm_epsilon = 1e-6;
};

/// Reads the fields that Llama and its descendants share: sizes, heads, norm, activation, rope, head, dtype. Throws
/// ConfigError naming field and value.
DecoderSpec ParseCommon(const JsonObject& config, std::string_view architecture, const ConfigDefaults& defaults);

/// Refuses every option that changes a model's numbers in a way the family does not have, unless it is in `supported`
/// or has the value that changes nothing.
void RefuseUnsupported(const JsonObject& config, std::initializer_list<std::string_view> supported);

/// The rope of rotary_dim features: `rope_parameters`, or `rope_theta` with `rope_scaling`. Types default, linear and
/// llama3; others are refused by name. Frequencies are computed in f32 as HF transformers does.
RopeSpec ParseRope(const JsonObject& config, int64_t rotary_dim, int64_t max_positions);

/// `layer_types` as one window per layer: `window` for "sliding_attention", 0 for "full_attention". Empty when the
/// field is missing.
std::vector<int64_t> ParseLayerTypes(const JsonObject& config, int layers, int64_t window);

}  // namespace runahead
