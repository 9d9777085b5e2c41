#include "model/presets.h"

#include <fmt/format.h>

#include <array>
#include <string>

#include "model/architectures.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr std::string_view kLlama = "LlamaForCausalLM";
constexpr std::string_view kMistral = "MistralForCausalLM";
constexpr std::string_view kQwen2 = "Qwen2ForCausalLM";
constexpr std::string_view kQwen3 = "Qwen3ForCausalLM";
constexpr std::string_view kPhi3 = "Phi3ForCausalLM";
constexpr std::string_view kGemma2 = "Gemma2ForCausalLM";
constexpr std::string_view kFalcon = "FalconForCausalLM";
constexpr std::string_view kNeoX = "GPTNeoXForCausalLM";
constexpr std::string_view kMixtral = "MixtralForCausalLM";
constexpr std::string_view kQwen2Moe = "Qwen2MoeForCausalLM";
constexpr std::string_view kDeepseekV2 = "DeepseekV2ForCausalLM";
constexpr std::string_view kDeepseekV3 = "DeepseekV3ForCausalLM";
constexpr std::string_view kGptOss = "GptOssForCausalLM";
constexpr std::string_view kQwen3Moe = "Qwen3MoeForCausalLM";

constexpr const char* kLlama31Rope =
    R"({"rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})";
constexpr const char* kTinyLlama31Rope = R"({"rope_scaling": {"rope_type": "llama3", "factor": 8.0,
    "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 2048}})";
constexpr const char* kTinyLongRope =
    R"({"original_max_position_embeddings": 256, "rope_scaling": {"type": "longrope",
    "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5, 3.1, 3.8], "long_factor": [1.0, 2.0, 4.0, 7.0, 11.0, 16.0, 22.0, 29.0]}})";
constexpr const char* kFalcon40b = R"({"new_decoder_architecture": true})";
constexpr const char* kFalconRw = R"({"alibi": true, "multi_query": false, "parallel_attn": false, "bias": true})";
constexpr const char* kQwen3A3b = R"({"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
    "norm_topk_prob": true})";
constexpr const char* kMediumMoe = R"({"num_experts": 32, "num_experts_per_tok": 6, "moe_intermediate_size": 896,
    "norm_topk_prob": true})";
constexpr const char* kTinyQwen2Moe = R"({"num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40, "mlp_only_layers": [1]})";
constexpr const char* kTinyMixtral = R"({"num_local_experts": 4, "num_experts_per_tok": 2})";
constexpr const char* kV2Lite = R"({"kv_lora_rank": 512, "q_lora_rank": null, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 64, "num_experts_per_tok": 6,
    "moe_intermediate_size": 1408, "n_shared_experts": 2, "first_k_dense_replace": 1, "topk_method": "greedy"})";
constexpr const char* kV3 = R"({"kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 256, "num_experts_per_tok": 8,
    "moe_intermediate_size": 2048, "n_shared_experts": 1, "first_k_dense_replace": 3, "n_group": 8, "topk_group": 4,
    "routed_scaling_factor": 2.5})";
constexpr const char* kMediumLatent = R"({"kv_lora_rank": 256, "q_lora_rank": null, "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32, "v_head_dim": 64, "n_routed_experts": 32, "num_experts_per_tok": 6,
    "moe_intermediate_size": 768, "n_shared_experts": 1, "first_k_dense_replace": 1, "topk_method": "greedy"})";
constexpr const char* kTinyDeepseekV3 = R"({"kv_lora_rank": 24, "q_lora_rank": 20, "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6, "v_head_dim": 7, "n_routed_experts": 6, "num_experts_per_tok": 3,
    "moe_intermediate_size": 24, "n_shared_experts": 2, "first_k_dense_replace": 1, "n_group": 3, "topk_group": 2})";
constexpr const char* kGptOss20b = R"({"num_local_experts": 32, "num_experts_per_tok": 4, "attention_bias": true})";
constexpr const char* kTinyGptOss = R"({"num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 32,
    "attention_bias": true, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "truncate": false,
    "original_max_position_embeddings": 4096}})";
constexpr const char* kNothing = "{}";

// clang-format off
constexpr std::array kPresets = {
    //     name           architecture layers hidden   q  kv  dim    ffn   vocab      theta  tied   further fields
    Preset{"llama-7b",          kLlama,   32,  4096, 32, 32, 128, 11008,  32000,   10000.0, false, kNothing},
    Preset{"llama-13b",         kLlama,   40,  5120, 40, 40, 128, 13824,  32000,   10000.0, false, kNothing},
    Preset{"llama-3-8b",        kLlama,   32,  4096, 32,  8, 128, 14336, 128256,  500000.0, false, kNothing},
    Preset{"llama-1b",          kLlama,   16,  2048, 32,  8,  64,  8192, 128256,  500000.0, true,  kLlama31Rope},
    Preset{"mistral-7b",        kMistral, 32,  4096, 32,  8, 128, 14336,  32000,   10000.0, false, R"({"sliding_window": 4096})"},
    Preset{"qwen2.5-7b",        kQwen2,   28,  3584, 28,  4, 128, 18944, 152064, 1000000.0, false, kNothing},
    Preset{"qwen3-8b",          kQwen3,   36,  4096, 32,  8, 128, 12288, 151936, 1000000.0, false, kNothing},
    Preset{"phi-3-mini",        kPhi3,    32,  3072, 32, 32,  96,  8192,  32064,   10000.0, false, R"({"sliding_window": 2047})"},
    Preset{"gemma-2-2b",        kGemma2,  26,  2304,  8,  4, 256,  9216, 256000,   10000.0, true,  kNothing},
    Preset{"falcon-7b",         kFalcon,  32,  4544, 71,  1,  64, 18176,  65024,   10000.0, true,  kNothing},
    Preset{"falcon-40b",        kFalcon,  60,  8192,128,  8,  64, 32768,  65024,   10000.0, true,  kFalcon40b},
    Preset{"gpt-neox-20b",      kNeoX,    44,  6144, 64, 64,  96, 24576,  50432,   10000.0, false, kNothing},
    Preset{"mixtral-8x7b",      kMixtral, 32,  4096, 32,  8, 128, 14336,  32000, 1000000.0, false, kNothing},
    Preset{"qwen3-30b-a3b",     kQwen3Moe,48,  2048, 32,  4, 128,  6144, 151936, 1000000.0, false, kQwen3A3b},
    Preset{"deepseek-v2-lite",kDeepseekV2,27, 2048, 16, 16,  64, 10944, 102400,   10000.0, false, kV2Lite},
    Preset{"deepseek-v3",     kDeepseekV3,61, 7168,128,128,  64, 18432, 129280,   10000.0, false, kV3},
    Preset{"gpt-oss-20b",       kGptOss,  24,  2880, 64,  8,  64,  2880, 201088,  150000.0, false, kGptOss20b},
    Preset{"medium-latent",   kDeepseekV2,16, 1024, 16, 16,  32,  5376,  32000,   10000.0, false, kMediumLatent},
    Preset{"medium-moe",        kQwen3Moe,16,  1024, 16,  4,  64,  5376,  32000, 1000000.0, false, kMediumMoe},
    Preset{"medium-dense",      kQwen3,   16,  1024, 16,  4,  64,  5376,  32000, 1000000.0, false, kNothing},
    Preset{"small-llama",       kLlama,    8,   512,  8,  2,  64,  1408,   4096,   10000.0, true,  kNothing},
    Preset{"tiny-llama",        kLlama,    3,    64,  4,  2,  16,   176,    512,   10000.0, false, kNothing},
    Preset{"tiny-llama-mha",    kLlama,    2,    64,  4,  4,  16,   176,    320,   10000.0, false, kNothing},
    Preset{"tiny-llama-mqa",    kLlama,    2,    64,  4,  1,  32,   176,    320,   10000.0, false, kNothing},
    Preset{"tiny-llama-tied",   kLlama,    2,    64,  4,  2,  16,   176,    320,  500000.0, true,  kTinyLlama31Rope},
    Preset{"tiny-mistral",      kMistral,  3,    64,  4,  2,  16,   176,    320,   10000.0, false, R"({"sliding_window": 32})"},
    Preset{"tiny-qwen2",        kQwen2,    2,    64,  4,  2,  16,   176,    320, 1000000.0, true,  kNothing},
    Preset{"tiny-qwen3",        kQwen3,    3,    64,  4,  2,  32,   176,    320, 1000000.0, true,  kNothing},
    Preset{"tiny-phi3",         kPhi3,     2,    64,  4,  2,  16,   176,    320,   10000.0, false, kTinyLongRope},
    Preset{"tiny-gemma2",       kGemma2,   4,    64,  4,  2,  16,   176,    320,   10000.0, true,  R"({"sliding_window": 32, "query_pre_attn_scalar": 16})"},
    Preset{"tiny-falcon",       kFalcon,   2,    80,  5,  1,  16,   320,    320,   10000.0, true,  kNothing},
    Preset{"tiny-falcon-40b",   kFalcon,   2,    64,  4,  2,  16,   256,    320,   10000.0, true,  kFalcon40b},
    Preset{"tiny-falcon-rw",    kFalcon,   2,    64,  4,  4,  16,   256,    320,   10000.0, true,  kFalconRw},
    Preset{"tiny-gpt-neox",     kNeoX,     3,    64,  4,  4,  16,   256,    320,   10000.0, false, kNothing},
    Preset{"tiny-mixtral",      kMixtral,  2,    64,  4,  2,  16,    48,    320,   10000.0, false, kTinyMixtral},
    Preset{"tiny-qwen2-moe",    kQwen2Moe, 3,    64,  4,  2,  16,    56,    320,   10000.0, false, kTinyQwen2Moe},
    Preset{"tiny-deepseek-v3",kDeepseekV3, 3,    64,  4,  4,   6,    56,    320,   10000.0, false, kTinyDeepseekV3},
    Preset{"tiny-gpt-oss",      kGptOss,   3,    64,  4,  2,  16,    48,    320,  150000.0, false, kTinyGptOss},
};
// clang-format on

/// model_type, and the fields that Llama's descendants share.
Json LlamaFields(const Preset& preset) {
  return {{"num_key_value_heads", preset.kv_heads},
          {"head_dim", preset.head_dim},
          {"intermediate_size", preset.ffn},
          {"hidden_act", "silu"},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", preset.rope_theta}};
}

Json FamilyFields(const Preset& preset) {
  if (preset.architecture == kFalcon) {
    return {{"num_kv_heads", preset.kv_heads},
            {"ffn_hidden_size", preset.ffn},
            {"activation", "gelu"},
            {"layer_norm_epsilon", 1e-5},
            {"rope_theta", preset.rope_theta}};
  }
  if (preset.architecture == kNeoX) {
    return {{"intermediate_size", preset.ffn},
            {"hidden_act", "gelu"},
            {"layer_norm_eps", 1e-5},
            {"rotary_emb_base", preset.rope_theta},
            {"rotary_pct", 0.25}};
  }
  Json fields = LlamaFields(preset);
  if (preset.architecture == kQwen2 || preset.architecture == kQwen3) fields["use_sliding_window"] = false;
  if (preset.architecture == kGemma2) {
    fields.erase("hidden_act");
    fields["hidden_activation"] = "gelu_pytorch_tanh";
  }
  return fields;
}

}  // namespace

std::span<const Preset> Presets() { return kPresets; }

const Preset& FindPreset(std::string_view name, std::string_view origin) {
  std::string known;
  for (const Preset& preset : kPresets) {
    if (preset.name == name) return preset;
    known += known.empty() ? "" : ", ";
    known += preset.name;
  }
  throw ConfigError(fmt::format("{}: expected one of {}, got '{}'", origin, known, name));
}

Json PresetConfig(const Preset& preset) {
  // Random weights know no context length, so positions are as many as a bench may want.
  constexpr int64_t kPositions = 131072;
  Json config = {
      {"architectures", Json::array({std::string(preset.architecture)})},
      {"model_type", std::string(FamilyOf(preset.architecture))},
      {"num_hidden_layers", preset.layers},
      {"hidden_size", preset.hidden},
      {"num_attention_heads", preset.q_heads},
      {"vocab_size", preset.vocab},
      {"max_position_embeddings", kPositions},
      {"tie_word_embeddings", preset.tied_head},
      {"bos_token_id", kMadeBos},
      {"eos_token_id", kMadeEos},
      {"torch_dtype", "bfloat16"},
  };
  config.update(FamilyFields(preset));
  config.update(Json::parse(preset.further));
  return config;
}

}  // namespace runahead
