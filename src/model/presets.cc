#include "model/presets.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "runahead/error.h"

namespace runahead {
namespace {

constexpr std::string_view kLlama = "LlamaForCausalLM";
constexpr std::string_view kMistral = "MistralForCausalLM";
constexpr std::string_view kQwen2 = "Qwen2ForCausalLM";

// clang-format off
constexpr std::array kPresets = {
    //     name              architecture layers hidden  q  kv dim    ffn   vocab positions    theta llama3 tied  window
    Preset{"llama-7b",          kLlama,   32,  4096, 32, 32, 128, 11008,  32000, 131072,   10000.0,  0, false,    0},
    Preset{"llama-13b",         kLlama,   40,  5120, 40, 40, 128, 13824,  32000, 131072,   10000.0,  0, false,    0},
    Preset{"llama-3-8b",        kLlama,   32,  4096, 32,  8, 128, 14336, 128256, 131072,  500000.0,  0, false,    0},
    Preset{"llama-1b",          kLlama,   16,  2048, 32,  8,  64,  8192, 128256, 131072,  500000.0, 32, true,     0},
    Preset{"mistral-7b",        kMistral, 32,  4096, 32,  8, 128, 14336,  32000, 131072,   10000.0,  0, false, 4096},
    Preset{"qwen2.5-7b",        kQwen2,   28,  3584, 28,  4, 128, 18944, 152064, 131072, 1000000.0,  0, false,    0},
    Preset{"small-llama",       kLlama,    8,   512,  8,  2,  64,  1408,   4096,  65536,   10000.0,  0, true,     0},
    Preset{"tiny-llama",        kLlama,    3,    64,  4,  2,  16,   176,    512,   8192,   10000.0,  0, false,    0},
    Preset{"tiny-llama-mha",    kLlama,    2,    64,  4,  4,  16,   176,    320,   8192,   10000.0,  0, false,    0},
    Preset{"tiny-llama-mqa",    kLlama,    2,    64,  4,  1,  32,   176,    320,   8192,   10000.0,  0, false,    0},
    Preset{"tiny-llama-tied",   kLlama,    2,    64,  4,  2,  16,   176,    320,   8192,  500000.0,  8, true,     0},
    Preset{"tiny-mistral",      kMistral,  3,    64,  4,  2,  16,   176,    320,   8192,   10000.0,  0, false,   32},
    Preset{"tiny-qwen2",        kQwen2,    2,    64,  4,  2,  16,   176,    320,   8192, 1000000.0,  0, true,     0},
};
// clang-format on

}  // namespace

std::span<const Preset> Presets() { return kPresets; }

const Preset& FindPreset(std::string_view name) {
  std::string known;
  for (const Preset& preset : kPresets) {
    if (preset.name == name) return preset;
    known += known.empty() ? "" : ", ";
    known += preset.name;
  }
  throw ConfigError(fmt::format("preset: expected one of {}, got {}", known, name));
}

Json PresetConfig(const Preset& preset) {
  Json config = {
      {"architectures", Json::array({std::string(preset.architecture)})},
      {"model_type", preset.architecture == kLlama     ? "llama"
                     : preset.architecture == kMistral ? "mistral"
                                                       : "qwen2"},
      {"num_hidden_layers", preset.layers},
      {"hidden_size", preset.hidden},
      {"num_attention_heads", preset.q_heads},
      {"num_key_value_heads", preset.kv_heads},
      {"head_dim", preset.head_dim},
      {"intermediate_size", preset.ffn},
      {"vocab_size", preset.vocab},
      {"max_position_embeddings", preset.max_positions},
      {"hidden_act", "silu"},
      {"rms_norm_eps", 1e-5},
      {"rope_theta", preset.rope_theta},
      {"tie_word_embeddings", preset.tied_head},
      {"bos_token_id", kMadeBos},
      {"eos_token_id", kMadeEos},
      {"torch_dtype", "bfloat16"},
  };
  if (preset.llama3_factor != 0) {
    config["rope_scaling"] = {
        {"rope_type", "llama3"},
        {"factor", preset.llama3_factor},
        {"low_freq_factor", 1.0},
        {"high_freq_factor", 4.0},
        {"original_max_position_embeddings", std::min<int64_t>(8192, preset.max_positions / 4)}};
  }
  if (preset.architecture == kMistral) {
    config["sliding_window"] = preset.window != 0 ? Json(preset.window) : Json(nullptr);
  }
  if (preset.architecture == kQwen2) config["use_sliding_window"] = false;
  return config;
}

}  // namespace runahead
