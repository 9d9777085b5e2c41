// The sizes that make-model knows.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/json.h"

namespace runahead {

/// Ids of the byte-level tokenizer that comes with a made model: 0 to 255 are the bytes.
inline constexpr int32_t kMadeBos = 256;
inline constexpr int32_t kMadeEos = 257;

/// One row of the table.
struct Preset {
  std::string_view name;
  std::string_view architecture;
  int layers;
  int64_t hidden;
  int64_t q_heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t ffn;
  int64_t vocab;
  double rope_theta;
  bool tied_head;
  const char* further;  // fields of config.json that only this one has, as a JSON object
};

std::span<const Preset> Presets();

/// Throws ConfigError that opens with `origin`, where the name was found, and names it and the presets that exist.
const Preset& FindPreset(std::string_view name, std::string_view origin = "preset");

/// The preset as config.json.
Json PresetConfig(const Preset& preset);

}  // namespace runahead
