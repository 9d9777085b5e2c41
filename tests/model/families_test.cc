// What the families beyond Llama read from config.json: variants, defaults, where fused weights lie, what is refused.
#include <gtest/gtest.h>

#include <cmath>

#include "model/architectures.h"
#include "model/presets.h"
#include "tests/model/model_testing.h"

namespace runahead {
namespace {

/// The config of a preset with the fields of `patch`; the text "remove" takes a field away.
Json Patched(const char* preset, const std::string& patch) {
  Json config = PresetConfig(FindPreset(preset));
  const Json fields = Json::parse(patch);
  for (const auto& [key, value] : fields.items()) {
    if (value == "remove") {
      config.erase(key);
    } else {
      config[key] = value;
    }
  }
  return config;
}

ParsedModel Parse(const char* preset, const std::string& patch = "{}") {
  const Json config = Patched(preset, patch);
  const JsonObject object(config, "config.json");
  return FindArchitecture(object).parse(object);
}

TEST(FamiliesTest, Falcon7bIsMultiQueryAndParallelBehindOneNorm) {
  const ParsedModel model = Parse("falcon-7b");
  const DecoderSpec& spec = model.spec;
  EXPECT_EQ(spec.q_heads, 71);
  EXPECT_EQ(spec.kv_heads, 1);
  EXPECT_EQ(spec.head_dim, 64);
  EXPECT_EQ(spec.ffn, 4 * 4544);
  EXPECT_EQ(spec.order, BlockOrder::kParallel);
  EXPECT_EQ(spec.norm, NormKind::kLayer);
  EXPECT_FALSE(spec.gated_mlp);
  EXPECT_TRUE(spec.tied_head);
  const LayerSource& layer = model.sources.layers[31];
  EXPECT_FALSE(layer.mlp_norm.has_value());
  EXPECT_TRUE(layer.attention_norm->bias);
  ASSERT_EQ(layer.qkv[0].size(), 1U);
  EXPECT_EQ(layer.qkv[0][0].begin, 0);
  EXPECT_EQ(layer.qkv[0][0].end, 71 * 64);
  EXPECT_EQ(layer.qkv[1][1].end, 73 * 64);
  EXPECT_FALSE(layer.qkv[0][0].bias);
}

TEST(FamiliesTest, Falcon40bHasGroupsAndTwoNorms) {
  const ParsedModel model = Parse("falcon-40b");
  EXPECT_EQ(model.spec.kv_heads, 8);
  const LayerSource& layer = model.sources.layers[0];
  EXPECT_EQ(layer.attention_norm->name, "transformer.h.0.ln_attn");
  EXPECT_EQ(layer.mlp_norm->name, "transformer.h.0.ln_mlp");
  // Each group has 16 queries, a key and a value; all keys come before all values.
  ASSERT_EQ(layer.qkv[0].size(), 1U);
  ASSERT_EQ(layer.qkv[1].size(), 2U);
  EXPECT_EQ(layer.qkv[0][0].blocks, 8);
  EXPECT_EQ(layer.qkv[0][0].stride, 18 * 64);
  EXPECT_EQ(layer.qkv[0][0].end, 16 * 64);
  EXPECT_EQ(layer.qkv[1][0].begin, 16 * 64);
  EXPECT_EQ(layer.qkv[1][1].begin, 17 * 64);
  EXPECT_EQ(layer.qkv[1][1].rows, 8 * 18 * 64);
}

TEST(FamiliesTest, FalconRwHasAlibiAndNoRope) {
  const ParsedModel model = Parse("tiny-falcon-rw", R"({"num_attention_heads": 12, "num_kv_heads": "remove",
                                                       "hidden_size": 72})");
  EXPECT_TRUE(model.spec.rope.inverse_frequencies.empty());
  EXPECT_EQ(model.spec.order, BlockOrder::kSequential);
  EXPECT_EQ(model.spec.kv_heads, 12);
  // Eight heads fall by powers of 1/2; four more take every second power of 1/sqrt(2).
  ASSERT_EQ(model.spec.alibi_slopes.size(), 12U);
  EXPECT_FLOAT_EQ(model.spec.alibi_slopes[0], 0.5F);
  EXPECT_FLOAT_EQ(model.spec.alibi_slopes[7], 1.0F / 256);
  EXPECT_FLOAT_EQ(model.spec.alibi_slopes[8], std::sqrt(0.5F));
  EXPECT_FLOAT_EQ(model.spec.alibi_slopes[11], std::pow(0.5F, 3.5F));
}

TEST(FamiliesTest, GptNeoXTurnsAQuarterOfEachHeadUnlessToldOtherwise) {
  EXPECT_EQ(Parse("gpt-neox-20b", R"({"rotary_pct": "remove"})").spec.rope.inverse_frequencies.size(), 12U);
  EXPECT_EQ(Parse("gpt-neox-20b", R"({"rotary_pct": 1.0})").spec.rope.inverse_frequencies.size(), 48U);
  EXPECT_EQ(Parse("gpt-neox-20b", R"({"use_parallel_residual": false})").spec.order, BlockOrder::kSequential);
  EXPECT_TRUE(Parse("gpt-neox-20b").sources.layers[0].out[0].bias);
  EXPECT_FALSE(Parse("gpt-neox-20b", R"({"attention_bias": false})").sources.layers[0].out[0].bias);
}

TEST(FamiliesTest, Phi3HasOtherAnglesForLongSequences) {
  const RopeSpec rope = Parse("tiny-phi3").spec.rope;
  EXPECT_FALSE(rope.IsLong(256));
  EXPECT_TRUE(rope.IsLong(257));
  EXPECT_FLOAT_EQ(rope.inverse_frequencies[1] / rope.long_inverse_frequencies[1], 2.0F / 1.1F);
  // Stretched 512 times from 256 positions: sqrt(1 + 9/8).
  EXPECT_FLOAT_EQ(rope.magnitude, std::sqrt(2.125F));
  EXPECT_TRUE(Parse("tiny-phi3", R"({"rope_scaling": null})").spec.rope.long_inverse_frequencies.empty());
}

TEST(FamiliesTest, Gemma2AlternatesWindowsAndCaps) {
  const DecoderSpec spec = Parse("gemma-2-2b").spec;
  EXPECT_EQ(spec.window(0), 4096);
  EXPECT_EQ(spec.window(1), 0);
  EXPECT_FLOAT_EQ(spec.attention_scale, 1.0F / 16);
  EXPECT_FLOAT_EQ(spec.embedding_scale, 48);
  EXPECT_EQ(spec.attention_softcap, 50);
  EXPECT_EQ(spec.logit_softcap, 30);
  EXPECT_EQ(spec.norm_offset, 1);
  EXPECT_EQ(Parse("gemma-2-2b", R"({"final_logit_softcapping": null})").spec.logit_softcap, 0);
}

TEST(FamiliesTest, Qwen3HasHeadsOf128AndTheirNorms) {
  const ParsedModel model = Parse("qwen3-8b", R"({"head_dim": "remove", "hidden_size": 5120})");
  EXPECT_EQ(model.spec.head_dim, 128);
  EXPECT_EQ(model.sources.layers[5].q_norm->name, "model.layers.5.self_attn.q_norm");
  EXPECT_EQ(model.sources.layers[5].k_norm->features, 128);
}

TEST(FamiliesTest, Qwen2MoeMixesInAllLayersButThoseThatSayOtherwise) {
  const ParsedModel model = Parse("tiny-qwen2-moe", R"({"num_hidden_layers": 6, "decoder_sparse_step": 2})");
  EXPECT_FALSE(model.spec.mixes(0));  // not every second layer
  EXPECT_FALSE(model.spec.mixes(1));  // of mlp_only_layers
  EXPECT_TRUE(model.spec.mixes(5));
  EXPECT_FALSE(model.sources.layers[1].mixture.has_value());
  const LayerSource& layer = model.sources.layers[5];
  EXPECT_TRUE(layer.gate_up.empty());
  ASSERT_EQ(layer.mixture->experts.size(), 6U);  // the shared one is the last
  EXPECT_EQ(layer.mixture->experts[5].down[0].columns, 40);
  EXPECT_EQ(layer.mixture->router[1].name, "model.layers.5.mlp.shared_expert_gate");
  const MlpWeights mlp = model.spec.mlp_weights(5);
  EXPECT_EQ(mlp.active, 6 + 3 * (3 * 24 + 40));
  EXPECT_EQ(mlp.total, 6 + 3 * (5 * 24 + 40));
  EXPECT_EQ(Parse("tiny-qwen2-moe", R"({"decoder_sparse_step": 9})").spec.mixture.experts, 0);
}

/// The config.json of a published model, of which nothing is left out that a family reads.
ParsedModel ParsePublished(const char* text) {
  const Json config = Json::parse(text);
  const JsonObject object(config, "config.json");
  return FindArchitecture(object).parse(object);
}

TEST(FamiliesTest, Falcon3IsALlamaWithHeadsOf256) {
  const DecoderSpec spec = ParsePublished(R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false,
      "attention_dropout": 0.0, "head_dim": 256, "hidden_act": "silu", "hidden_size": 3072,
      "intermediate_size": 23040, "max_position_embeddings": 32768, "mlp_bias": false, "model_type": "llama",
      "num_attention_heads": 12, "num_hidden_layers": 28, "num_key_value_heads": 4, "pretraining_tp": 1,
      "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000042, "tie_word_embeddings": false,
      "torch_dtype": "bfloat16", "vocab_size": 131072})")
                               .spec;
  EXPECT_EQ(spec.head_dim, 256);
  EXPECT_EQ(spec.kv_features(), 1024);
}

TEST(FamiliesTest, YiIsALlama) {
  const DecoderSpec spec = ParsePublished(R"({"architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
      "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "llama",
      "num_attention_heads": 32, "num_hidden_layers": 48, "num_key_value_heads": 4, "pad_token_id": 0,
      "pretraining_tp": 1, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 5000000.0,
      "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": false, "vocab_size": 64000})")
                               .spec;
  EXPECT_EQ(spec.layers, 48);
  EXPECT_FLOAT_EQ(spec.rope.inverse_frequencies[32], 1 / std::sqrt(5e6F));
}

TEST(FamiliesTest, R1DistillQwenHasAWindowThatIsSwitchedOff) {
  const ParsedModel model = ParsePublished(R"({"architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu",
      "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 131072, "max_window_layers": 28,
      "model_type": "qwen2", "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
      "rms_norm_eps": 1e-06, "rope_theta": 10000, "sliding_window": 4096, "tie_word_embeddings": false,
      "torch_dtype": "bfloat16", "use_cache": true, "use_mrope": false, "use_sliding_window": false,
      "vocab_size": 152064})");
  EXPECT_EQ(model.spec.window(27), 0);
  EXPECT_TRUE(model.sources.layers[0].qkv[0][0].bias);
}

TEST(FamiliesTest, R1DistillLlamaHasTheRopeOfLlama31) {
  const DecoderSpec spec = ParsePublished(R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false,
      "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 131072,
      "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
      "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0,
      "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
      "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 128256})")
                               .spec;
  EXPECT_EQ(spec.max_positions, 131072);
  EXPECT_FLOAT_EQ(spec.rope.inverse_frequencies[63] * 8, std::pow(500000.0F, -126.0F / 128));
}

TEST(FamiliesTest, Baichuan2PacksQueriesKeysAndValuesAndHasUnitRowsInItsHead) {
  const ParsedModel model = ParsePublished(R"({"architectures": ["BaichuanForCausalLM"], "hidden_act": "silu",
      "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096, "model_max_length": 4096,
      "model_type": "baichuan", "num_attention_heads": 32, "num_hidden_layers": 32, "pad_token_id": 0,
      "rms_norm_eps": 1e-06, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true,
      "vocab_size": 125696})");
  EXPECT_EQ(model.sources.layers[3].qkv[1][0].name, "model.layers.3.self_attn.W_pack");
  EXPECT_EQ(model.sources.layers[3].qkv[1][0].begin, 4096);
  EXPECT_TRUE(model.sources.head.unit_rows);
}

struct Refused {
  const char* preset;
  std::string patch;
  std::vector<std::string> says;
};

class RefusedFamilyTest : public testing::TestWithParam<Refused> {};

TEST_P(RefusedFamilyTest, NamesFieldAndValue) {
  const std::optional<std::string> error = Refusal([] { (void)Parse(GetParam().preset, GetParam().patch); });
  ASSERT_TRUE(error.has_value()) << GetParam().patch;
  EXPECT_TRUE(error->starts_with("config.json: ")) << *error;
  for (const std::string& part : GetParam().says) EXPECT_NE(error->find(part), std::string::npos) << *error;
}

INSTANTIATE_TEST_SUITE_P(
    Fields, RefusedFamilyTest,
    testing::Values(
        Refused{"falcon-40b", R"({"parallel_attn": false})", {"parallel_attn", "false"}},
        Refused{"falcon-40b", R"({"num_ln_in_parallel_attn": 3})", {"num_ln_in_parallel_attn", "3"}},
        Refused{"falcon-7b", R"({"num_ln_in_parallel_attn": 2})", {"num_ln_in_parallel_attn", "2"}},
        Refused{"falcon-7b", R"({"n_embed": 128})", {"n_embed", "128"}},
        Refused{"falcon-7b", R"({"head_dim": 32})", {"head_dim", "32"}},
        Refused{"falcon-7b", R"({"activation": "mish"})", {"activation", "mish"}},
        Refused{"falcon-7b", R"({"layer_norm_epsilon": -1})", {"layer_norm_epsilon", "-1"}},
        Refused{"tiny-falcon-rw", R"({"num_kv_heads": 2})", {"num_kv_heads", "2"}},
        Refused{"tiny-gpt-neox", R"({"num_key_value_heads": 2})", {"num_key_value_heads", "2"}},
        Refused{"tiny-gpt-neox", R"({"rotary_pct": 0})", {"rotary_pct", "0"}},
        Refused{"tiny-gpt-neox", R"({"rotary_pct": 1.5})", {"rotary_pct", "1.5"}},
        Refused{"tiny-gpt-neox", R"({"sliding_window": 12})", {"sliding_window", "12"}},
        Refused{"tiny-phi3",
                R"({"rope_scaling": {"type": "longrope", "short_factor": [1], "long_factor": [1]}})",
                {"rope_scaling", "short_factor", "8"}},
        Refused{"tiny-phi3",
                R"({"rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1, 1, 1, 1, 0],
                                                  "long_factor": [1]}})",
                {"short_factor"}},
        Refused{"tiny-phi3", R"({"original_max_position_embeddings": 0})", {"original_max_position_embeddings", "0"}},
        Refused{"tiny-phi3", R"({"rope_scaling": {"type": "spiral", "factor": 2}})", {"type", "spiral"}},
        Refused{"tiny-mixtral", R"({"num_experts_per_tok": 5})", {"num_experts_per_tok", "at most", "4", "5"}},
        Refused{"tiny-mixtral", R"({"num_local_experts": 0})", {"num_local_experts", "0"}},
        Refused{"tiny-qwen2-moe", R"({"mlp_only_layers": ["a"]})", {"mlp_only_layers", "a"}},
        Refused{"tiny-qwen2-moe", R"({"decoder_sparse_step": 0})", {"decoder_sparse_step", "0"}},
        Refused{"tiny-qwen2-moe", R"({"shared_expert_intermediate_size": -1})", {"shared_expert_intermediate_size"}},
        Refused{"tiny-deepseek-v3", R"({"n_group": 4})", {"n_group", "divisor", "6", "4"}},
        Refused{"tiny-deepseek-v3", R"({"n_group": 6})", {"n_group", "2 experts", "6"}},
        Refused{"tiny-deepseek-v3", R"({"topk_group": 1})", {"topk_group", "3 experts", "1"}},
        Refused{"tiny-deepseek-v3", R"({"scoring_func": "softmax"})", {"scoring_func", "sigmoid", "softmax"}},
        Refused{"tiny-deepseek-v3", R"({"qk_rope_head_dim": 5})", {"qk_rope_head_dim", "even", "5"}},
        Refused{"tiny-deepseek-v3", R"({"kv_lora_rank": 0})", {"kv_lora_rank", "0"}},
        Refused{"deepseek-v2-lite", R"({"topk_method": "noaux_tc"})", {"topk_method", "greedy", "noaux_tc"}},
        Refused{"deepseek-v2-lite", R"({"moe_layer_freq": 2})", {"moe_layer_freq", "2"}},
        Refused{"tiny-gpt-oss", R"({"swiglu_limit": 0})", {"swiglu_limit", "0"}},
        Refused{"tiny-gpt-oss",
                R"({"num_local_experts": 4096, "num_hidden_layers": 17})",
                {"num_local_experts", "65536"}},
        Refused{"tiny-mixtral",
                R"({"quantization_config": {"quant_method": "mxfp4"}})",
                {"quantization_config", "fp8", "mxfp4"}},
        Refused{"tiny-llama", R"({"num_local_experts": 8})", {"num_local_experts", "8"}},
        Refused{"tiny-gemma2", R"({"attn_logit_softcapping": -1})", {"attn_logit_softcapping", "-1"}},
        Refused{"tiny-gemma2", R"({"query_pre_attn_scalar": 0})", {"query_pre_attn_scalar", "0"}},
        Refused{"tiny-gemma2", R"({"use_bidirectional_attention": true})", {"use_bidirectional_attention"}},
        Refused{"tiny-qwen3", R"({"rope_scaling": {"type": "spiral", "factor": 4}})", {"spiral"}}));

TEST(FamiliesTest, GptOssAsPublished) {
  const ParsedModel model = ParsePublished(R"({"architectures": ["GptOssForCausalLM"], "attention_bias": true,
      "attention_dropout": 0.0, "eos_token_id": 200002, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu",
      "hidden_size": 2880, "initial_context_length": 4096, "initializer_range": 0.02, "intermediate_size": 2880,
      "layer_types": ["sliding_attention", "full_attention"], "max_position_embeddings": 131072,
      "model_type": "gpt_oss", "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 2,
      "num_key_value_heads": 8, "num_local_experts": 32, "pad_token_id": 199999,
      "quantization_config": {"modules_to_not_convert": ["model.layers.*.self_attn"], "quant_method": "mxfp4"},
      "rms_norm_eps": 1e-05, "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
      "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": false}, "rope_theta": 150000,
      "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0, "tie_word_embeddings": false,
      "use_cache": true, "vocab_size": 201088})");
  EXPECT_EQ(model.spec.windows, (std::vector<int64_t>{128, 0}));
  EXPECT_EQ(model.spec.mixture.chosen, 4);
  EXPECT_EQ(model.spec.mixture.clamped.limit, 7);
  EXPECT_EQ(model.spec.max_positions, 131072);
  EXPECT_EQ(model.sources.layers[1].sinks->name, "model.layers.1.self_attn.sinks");
  const StackedSource& down = model.sources.layers[1].mixture->experts[31].down;
  EXPECT_EQ(down[0].begin, 31 * 2880);
  EXPECT_EQ(down[0].rows, 32 * 2880);
}

TEST(FamiliesTest, DeepseekV2LiteAsPublished) {
  const ParsedModel model = ParsePublished(R"({"architectures": ["DeepseekV2ForCausalLM"], "attention_bias": false,
      "attention_dropout": 0.0, "aux_loss_alpha": 0.001, "bos_token_id": 100000, "eos_token_id": 100001,
      "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
      "intermediate_size": 10944, "kv_lora_rank": 512, "max_position_embeddings": 163840, "model_type": "deepseek_v2",
      "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_group": 1, "n_routed_experts": 64, "n_shared_experts": 2,
      "norm_topk_prob": false, "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 27,
      "num_key_value_heads": 16, "q_lora_rank": null, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
      "rms_norm_eps": 1e-06, "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707,
      "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096, "type": "yarn"}, "rope_theta": 10000,
      "routed_scaling_factor": 1.0, "scoring_func": "softmax", "seq_aux": true, "tie_word_embeddings": false,
      "topk_group": 1, "topk_method": "greedy", "torch_dtype": "bfloat16", "v_head_dim": 128, "vocab_size": 102400})");
  const DecoderSpec& spec = model.spec;
  EXPECT_EQ(spec.kv_shape(DType::kBF16).BytesPerToken(), 27U * (512 + 64) * 2);
  EXPECT_EQ(spec.latent.query_rank, 0);
  EXPECT_FALSE(spec.mixes(0));
  EXPECT_TRUE(spec.mixes(1));
  EXPECT_EQ(spec.mixture.shared_ffn, 2 * 1408);
  EXPECT_EQ(spec.max_positions, 163840);
  EXPECT_EQ(spec.rope.magnitude, 1);
  const double magnitude = 0.1 * 0.707 * std::log(40.0) + 1;  // of keys and of queries
  EXPECT_NEAR(spec.attention_scale, magnitude * magnitude / std::sqrt(192.0), 1e-8);
}

}  // namespace
}  // namespace runahead
