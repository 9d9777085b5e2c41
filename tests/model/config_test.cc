// config.json: what is read, what is refused.
#include <gtest/gtest.h>

#include <numbers>

#include "model/architectures.h"
#include "tests/model/model_testing.h"

namespace runahead {
namespace {

Json BaseConfig() {
  return Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096,
    "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_act": "silu", "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "tie_word_embeddings": false,
    "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16", "pretraining_tp": 2, "attention_dropout": 0.1,
    "initializer_range": 0.02, "use_cache": true, "transformers_version": "4.40.0", "rope_scaling": null})");
}

ParsedModel ParseModel(const Json& config) {
  const JsonObject object(config, "config.json");
  return FindArchitecture(object).parse(object);
}

DecoderSpec Parse(const Json& config) { return ParseModel(config).spec; }

/// Which matrices of the first layer have a bias: q, out, down.
std::vector<bool> Biases(const Json& config) {
  const LayerSource layer = ParseModel(config).sources.layers.front();
  return {layer.qkv[0][0].bias, layer.out[0].bias, layer.down[0].bias};
}

/// BaseConfig with the fields of `patch`; a null in it stays a null, the text "remove" takes the field away.
Json Patched(const std::string& patch) {
  Json config = BaseConfig();
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

TEST(ConfigTest, ReadsLlama) {
  const DecoderSpec spec = Parse(BaseConfig());
  EXPECT_EQ(spec.architecture, "LlamaForCausalLM");
  EXPECT_EQ(spec.layers, 32);
  EXPECT_EQ(spec.vocab, 32000);
  EXPECT_EQ(spec.hidden, 4096);
  EXPECT_EQ(spec.ffn, 11008);
  EXPECT_EQ(spec.q_heads, 32);
  EXPECT_EQ(spec.kv_heads, 8);
  EXPECT_EQ(spec.head_dim, 128);
  EXPECT_EQ(spec.q_features(), 4096);
  EXPECT_EQ(spec.kv_features(), 1024);
  EXPECT_EQ(spec.max_positions, 4096);
  EXPECT_EQ(spec.norm, NormKind::kRms);
  EXPECT_FLOAT_EQ(spec.norm_epsilon, 1e-5F);
  EXPECT_EQ(spec.activation, Activation::kSilu);
  EXPECT_FLOAT_EQ(spec.attention_scale, 1 / std::sqrt(128.0F));
  EXPECT_EQ(spec.embedding_scale, 1);
  EXPECT_FALSE(spec.tied_head);
  EXPECT_EQ(Biases(BaseConfig()), std::vector({false, false, false}));
  EXPECT_EQ(spec.window(0), 0);
  EXPECT_EQ(spec.weights, DType::kBF16);
  EXPECT_EQ(spec.rope.inverse_frequencies.size(), 64U);
  EXPECT_EQ(spec.rope.magnitude, 1);
}

TEST(ConfigTest, DefaultsAreThoseOfTransformers) {
  const DecoderSpec spec = Parse(Patched(R"({"num_key_value_heads": null, "rms_norm_eps": "remove",
      "max_position_embeddings": "remove", "hidden_act": "remove", "torch_dtype": "remove", "rope_scaling": "remove",
      "tie_word_embeddings": "remove", "architectures": "remove"})"));
  EXPECT_EQ(spec.architecture, "LlamaForCausalLM");
  EXPECT_EQ(spec.kv_heads, 32);
  EXPECT_FLOAT_EQ(spec.norm_epsilon, 1e-6F);
  EXPECT_EQ(spec.max_positions, 2048);
  EXPECT_EQ(spec.activation, Activation::kSilu);
  EXPECT_EQ(spec.weights, DType::kF32);
  EXPECT_FLOAT_EQ(spec.rope.inverse_frequencies[1], std::pow(10000.0F, -1.0F / 64));
}

TEST(ConfigTest, ReadsOptions) {
  const Json config = Patched(R"({"head_dim": 96, "num_attention_heads": 6, "num_key_value_heads": 3,
      "attention_bias": true, "mlp_bias": true, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": true,
      "dtype": "float16"})");
  const DecoderSpec spec = Parse(config);
  EXPECT_EQ(spec.q_features(), 576);
  EXPECT_EQ(spec.kv_features(), 288);
  EXPECT_EQ(Biases(config), std::vector({true, true, true}));
  EXPECT_EQ(spec.activation, Activation::kGeluTanh);
  EXPECT_TRUE(spec.tied_head);
  EXPECT_EQ(spec.weights, DType::kF16) << "dtype is the newer name and wins";
}

// Computed in double from the formulas of the paper's section 3.2 and the reference code's bounds of the ramp: 23 and
// 40.
TEST(ConfigTest, YarnBlendsFrequenciesByHowOftenTheyTurn) {
  const RopeSpec rope = Parse(Patched(R"({"max_position_embeddings": 32768, "rope_theta": 1e6, "rope_scaling":
      {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}})"))
                            .rope;
  ASSERT_EQ(rope.inverse_frequencies.size(), 64U);
  const std::vector<std::pair<size_t, double>> expected = {{0, 1.0},
                                                           {10, 0.1154781984689458},
                                                           {23, 0.006978305848598663},
                                                           {30, 0.0010643609812470017},
                                                           {40, 4.445698525097307e-05},
                                                           {63, 3.102344401879299e-07}};
  for (const auto& [index, frequency] : expected) {
    EXPECT_NEAR(rope.inverse_frequencies[index], frequency, 1e-6 * frequency) << index;
  }
  EXPECT_FLOAT_EQ(rope.magnitude, 1.138629436111989F);
}

TEST(ConfigTest, AFactorStretchesTheContext) {
  const auto context = [](const std::string& patch) { return Parse(Patched(patch)).max_positions; };
  EXPECT_EQ(context(R"({"max_position_embeddings": 64, "rope_scaling": {"type": "linear", "factor": 4}})"), 256);
  EXPECT_EQ(context(R"({"max_position_embeddings": 64, "rope_parameters": {"rope_type": "linear", "factor": 2.5}})"),
            160);
  EXPECT_EQ(context(R"({"max_position_embeddings": 64, "rope_scaling": {"type": "yarn", "factor": 4}})"), 256);
  EXPECT_EQ(context(R"({"max_position_embeddings": 4096, "rope_scaling": {"type": "yarn", "factor": 4,
      "original_max_position_embeddings": 1024}})"),
            4096)
      << "named already";
  EXPECT_EQ(context(R"({"max_position_embeddings": 1024, "rope_scaling": {"type": "yarn", "factor": 4,
      "original_max_position_embeddings": 1024}})"),
            4096);
  EXPECT_EQ(context(R"({"max_position_embeddings": 64, "rope_scaling": {"type": "linear", "factor": 0.5}})"), 64);
  EXPECT_EQ(context(R"({"max_position_embeddings": 2147483647, "rope_scaling": {"type": "linear", "factor": 1e6}})"),
            INT32_MAX);
}

// The frequencies of each form are compared with those of transformers by the golden tests; here the forms agree.
TEST(ConfigTest, BothFormsOfRopeScalingMeanTheSame) {
  const auto frequencies = [](const std::string& patch) { return Parse(Patched(patch)).rope.inverse_frequencies; };
  const std::vector<float> plain = frequencies(R"({"rope_theta": 500000.0})");
  EXPECT_EQ(plain, frequencies(R"({"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}})"));
  EXPECT_EQ(plain, frequencies(R"({"rope_theta": 500000, "rope_scaling": {"type": "default"}})"));
  EXPECT_EQ(plain, frequencies(R"({"rope_theta": 500000, "rope_scaling": {}})"));
  EXPECT_EQ(plain, frequencies(R"({"rope_theta": 1, "rope_parameters": {"rope_theta": 500000.0}})"));

  const std::vector<float> linear = frequencies(R"({"rope_scaling": {"type": "linear", "factor": 4}})");
  EXPECT_EQ(linear, frequencies(R"({"rope_scaling": {"rope_type": "linear", "type": "yarn", "factor": 4.0}})"));
  EXPECT_EQ(linear, frequencies(R"({"rope_parameters": {"rope_type": "linear", "factor": 4.0}})"));
  EXPECT_FLOAT_EQ(linear[0], 0.25F);

  const std::vector<float> yarn = frequencies(R"({"rope_scaling": {"type": "yarn", "factor": 4}})");
  EXPECT_EQ(yarn, frequencies(R"({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}})"));

  const std::string llama3 = R"("factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0)";
  const std::vector<float> scaled = frequencies(R"({"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3",
      "original_max_position_embeddings": 1024, )" +
                                                llama3 + "}}");
  EXPECT_EQ(scaled, frequencies(R"({"rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3",
      "original_max_position_embeddings": 1024, )" +
                                llama3 + "}}"));
  EXPECT_EQ(scaled, frequencies(R"({"rope_theta": 500000.0, "original_max_position_embeddings": 1024,
      "rope_scaling": {"type": "llama3", )" +
                                llama3 + "}}"));
  ASSERT_EQ(scaled.size(), plain.size());
  for (size_t i = 0; i < plain.size(); ++i) {
    const double wave = 2 * std::numbers::pi / plain[i];
    const float lower = wave < 1024.0 / 4 ? plain[i] : plain[i] / 8;
    const float upper = wave > 1024.0 ? plain[i] / 8 : plain[i];
    EXPECT_GE(scaled[i], lower) << i;
    EXPECT_LE(scaled[i], upper) << i;
  }
}

TEST(ConfigTest, ReadsMistral) {
  const std::string mistral = R"("architectures": ["MistralForCausalLM"])";
  EXPECT_EQ(Parse(Patched("{" + mistral + "}")).window(3), 4096) << "the first Mistral's, when the field is missing";
  EXPECT_EQ(Parse(Patched("{" + mistral + R"(, "sliding_window": null})")).window(3), 0);
  const DecoderSpec spec =
      Parse(Patched("{" + mistral + R"(, "sliding_window": 77, "num_key_value_heads": "remove"})"));
  EXPECT_EQ(spec.windows, std::vector<int64_t>(32, 77));
  EXPECT_EQ(spec.kv_heads, 8);
}

TEST(ConfigTest, ReadsQwen2) {
  const std::string qwen = R"("architectures": ["Qwen2ForCausalLM"], "num_hidden_layers": 4, "sliding_window": 50)";
  const DecoderSpec spec = Parse(Patched("{" + qwen + R"(, "use_sliding_window": false})"));
  EXPECT_EQ(Biases(Patched("{" + qwen + "}")), std::vector({true, false, false}));
  EXPECT_EQ(spec.window(3), 0);
  const std::string sliding = "{" + qwen + R"(, "use_sliding_window": true, "max_window_layers": )";
  EXPECT_EQ(Parse(Patched(sliding + "3}")).windows, (std::vector<int64_t>{0, 0, 0, 50}));
  EXPECT_EQ(Parse(Patched(sliding + "28}")).windows, (std::vector<int64_t>{0, 0, 0, 0}));
  EXPECT_EQ(Parse(Patched(sliding + R"(1, "layer_types": ["sliding_attention", "full_attention", "full_attention",
      "sliding_attention"]})"))
                .windows,
            (std::vector<int64_t>{50, 0, 0, 50}));
}

struct Refused {
  std::string patch;
  std::vector<std::string> says;
};

class RefusedConfigTest : public testing::TestWithParam<Refused> {};

TEST_P(RefusedConfigTest, NamesFieldAndValue) {
  const std::optional<std::string> error = Refusal([&] { (void)Parse(Patched(GetParam().patch)); });
  ASSERT_TRUE(error.has_value()) << GetParam().patch;
  EXPECT_TRUE(error->starts_with("config.json: ")) << *error;
  for (const std::string& part : GetParam().says) EXPECT_NE(error->find(part), std::string::npos) << *error;
}

INSTANTIATE_TEST_SUITE_P(
    Fields, RefusedConfigTest,
    testing::Values(
        Refused{R"({"architectures": ["MambaForCausalLM"]})", {"architectures", "MambaForCausalLM"}},
        Refused{R"({"architectures": ["LlamaForSequenceClassification"]})", {"LlamaForSequenceClassification"}},
        Refused{R"({"architectures": []})", {"architectures", "[]"}},
        Refused{R"({"architectures": "LlamaForCausalLM"})", {"architectures"}},
        Refused{R"({"architectures": null, "model_type": "mamba"})", {"model_type", "mamba"}},
        Refused{R"({"architectures": null, "model_type": null})", {"model_type"}},
        Refused{R"({"num_hidden_layers": 0})", {"num_hidden_layers", "0"}},
        Refused{R"({"num_hidden_layers": 1000000})", {"num_hidden_layers", "1000000"}},
        Refused{R"({"num_hidden_layers": "32"})", {"num_hidden_layers", "\"32\""}},
        Refused{R"({"num_hidden_layers": "remove"})", {"num_hidden_layers"}},
        Refused{R"({"vocab_size": -1})", {"vocab_size", "-1"}}, Refused{R"({"vocab_size": 1e12})", {"vocab_size"}},
        Refused{R"({"vocab_size": 18446744073709551615})", {"vocab_size", "18446744073709551615"}},
        Refused{R"({"hidden_size": 1000000000000})", {"hidden_size", "1000000000000"}},
        Refused{R"({"intermediate_size": 1000000000000})", {"intermediate_size", "1000000000000"}},
        Refused{R"({"num_attention_heads": 1000000000000})", {"num_attention_heads", "1000000000000"}},
        Refused{R"({"num_attention_heads": 31})", {"num_attention_heads", "31"}},
        Refused{R"({"num_attention_heads": 30})", {"30"}},
        Refused{R"({"num_key_value_heads": 7})", {"num_key_value_heads", "7"}},
        Refused{R"({"num_key_value_heads": 64})", {"num_key_value_heads", "64"}},
        Refused{R"({"num_key_value_heads": 0})", {"num_key_value_heads", "0"}},
        Refused{R"({"head_dim": 1000000})", {"head_dim", "1000000"}},
        Refused{R"({"head_dim": 33})", {"head_dim", "33"}},
        Refused{R"({"head_dim": 4096, "num_attention_heads": 4096})", {"num_attention_heads", "4096"}},
        Refused{R"({"hidden_size": 1000000, "num_attention_heads": 1, "num_key_value_heads": 1})",
                {"head_dim", "1000000"}},
        Refused{R"({"max_position_embeddings": 0})", {"max_position_embeddings", "0"}},
        Refused{R"({"max_position_embeddings": 1000000000000})", {"max_position_embeddings", "1000000000000"}},
        Refused{R"({"rms_norm_eps": -1})", {"rms_norm_eps", "-1"}},
        Refused{R"({"rms_norm_eps": "small"})", {"rms_norm_eps", "small"}},
        Refused{R"({"hidden_act": "xielu"})", {"hidden_act", "xielu"}},
        Refused{R"({"rope_theta": 0})", {"rope_theta", "0"}},
        Refused{R"({"rope_theta": 1e-300})", {"rope_theta", "1e-300"}},
        Refused{R"({"rope_theta": -10000.0})", {"rope_theta", "-10000"}},
        Refused{R"({"rope_scaling": {"type": "spiral", "factor": 4}})", {"rope_scaling", "type", "spiral"}},
        Refused{R"({"rope_theta": 1, "rope_scaling": {"type": "yarn", "factor": 4}})", {"rope_theta", "yarn", "1"}},
        Refused{R"({"rope_scaling": {"type": "yarn"}})", {"rope_scaling", "factor"}},
        Refused{R"({"rope_scaling": {"rope_type": "spiral", "factor": 4}})", {"rope_type", "spiral"}},
        Refused{R"({"rope_parameters": {"rope_type": "longrope"}})", {"rope_parameters", "short_factor"}},
        Refused{R"({"rope_scaling": {"type": "linear"}})", {"rope_scaling", "factor"}},
        Refused{R"({"rope_scaling": {"type": "linear", "factor": 0}})", {"rope_scaling", "factor", "0"}},
        Refused{R"({"rope_scaling": {"type": "linear", "factor": 2, "partial_rotary_factor": 0.5}})",
                {"partial_rotary_factor", "0.5"}},
        Refused{R"({"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1}})",
                {"high_freq_factor", "1"}},
        Refused{R"({"rope_scaling": {"type": "llama3", "factor": 8, "high_freq_factor": 1}})", {"low_freq_factor"}},
        Refused{R"({"rope_scaling": "linear"})", {"rope_scaling", "linear"}},
        Refused{R"({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}})", {"full_attention"}},
        Refused{R"({"quantization_config": {"quant_method": "bitsandbytes"}})",
                {"quant_method: not supported; supported are awq, compressed-tensors, fp8, gptq", "bitsandbytes"}},
        Refused{R"({"quantization_config": {"quant_method": "awq", "version": "gemv"}})",
                {"version: not supported; supported is gemm", "gemv"}},
        Refused{R"({"quantization_config": {"quant_method": "awq", "bits": 8}})", {"bits", "supported is 4", "8"}},
        Refused{R"({"quantization_config": {"quant_method": "awq", "group_size": 0}})", {"group_size", "0"}},
        Refused{R"({"quantization_config": {"quant_method": "awq", "zero_point": false}})", {"zero_point", "false"}},
        Refused{R"({"quantization_config": {"quant_method": "awq", "backend": "llm-awq"}})", {"backend", "llm-awq"}},
        Refused{R"({"quantization_config": {"quant_method": "gptq", "bits": 3}})",
                {"bits: not supported; supported are 4 and 8", "3"}},
        Refused{R"({"quantization_config": {"quant_method": "gptq", "checkpoint_format": "marlin"}})",
                {"checkpoint_format: not supported; supported are gptq, gptq_v2", "marlin"}},
        Refused{R"({"quantization_config": {"quant_method": "gptq", "group_size": 1.5}})", {"group_size", "1.5"}},
        Refused{R"({"quantization_config": {"quant_method": "gptq", "dynamic": {"+:up": {"bits": 8}}}})",
                {"dynamic: +:up", "bits"}},
        Refused{R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}})",
                {"config_groups", "missing"}},
        Refused{R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "marlin-24"}})",
                {"format: not supported; supported are pack-quantized, int-quantized, float-quantized", "marlin-24"}},
        Refused{R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized",
                    "config_groups": {"a": {"weights": {"num_bits": 4, "strategy": "block"}}}}})",
                {"strategy: not supported; supported are tensor, channel, group", "block"}},
        Refused{R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized",
                    "config_groups": {"a": {"weights": {"num_bits": 4}}, "b": {"weights": {"num_bits": 8}}}}})",
                {"config_groups: b: expected weights like those of the groups before"}},
        Refused{R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "int-quantized",
                    "config_groups": {"a": {"weights": {"num_bits": 8, "symmetric": false}}}}})",
                {"symmetric", "false"}},
        Refused{R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized",
                    "transform_config": {"config_groups": {}}}})",
                {"transform_config"}},
        Refused{R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128]}})",
                {"weight_block_size", "[128]"}},
        Refused{R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [0, 128]}})",
                {"weight_block_size", "[0,128]"}},
        Refused{R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": "128"}})",
                {"weight_block_size", "128"}},
        Refused{R"({"sliding_window": 4096})", {"sliding_window", "4096"}},
        Refused{R"({"partial_rotary_factor": 0.5})", {"partial_rotary_factor", "0.5"}},
        Refused{R"({"attn_logit_softcapping": 50.0})", {"attn_logit_softcapping", "50"}},
        Refused{R"({"num_local_experts": 8})", {"num_local_experts", "8"}},
        Refused{R"({"layer_types": ["full_attention"]})", {"layer_types"}},
        Refused{R"({"num_hidden_layers": 1, "layer_types": ["sliding_attention"]})", {"layer_types", "sliding"}},
        Refused{R"({"architectures": ["MistralForCausalLM"], "sliding_window": 0})", {"sliding_window", "0"}},
        Refused{R"({"architectures": ["MistralForCausalLM"], "num_hidden_layers": 2,
                    "layer_types": ["full_attention", "sliding_attention"]})",
                {"layer_types"}},
        Refused{R"({"architectures": ["Qwen2ForCausalLM"], "num_hidden_layers": 1, "use_sliding_window": false,
                    "layer_types": ["sliding_attention"]})",
                {"layer_types"}},
        Refused{R"({"attention_bias": 1})", {"attention_bias", "1"}},
        Refused{R"({"tie_word_embeddings": "yes"})", {"tie_word_embeddings", "yes"}},
        Refused{R"({"torch_dtype": "float64"})", {"torch_dtype", "float64"}},
        Refused{R"({"dtype": "int8"})", {"dtype", "int8"}}));

TEST(ConfigTest, HarmlessOptionsAreAccepted) {
  EXPECT_NO_THROW((void)Parse(Patched(R"({"quantization_config": null, "sliding_window": null,
      "partial_rotary_factor": 1.0, "num_local_experts": 0, "add_cross_attention": false, "pretraining_tp": 4,
      "torch_dtype": "torch.float16", "unsloth_version": "2024"})")));
}

std::array<int64_t, 2> BlockOf(const std::string& quantization) {
  const Json config = Json::parse(R"({"quantization_config": )" + quantization + "}");
  return ScaleBlockOfWeights(JsonObject(config, "config.json"));
}

TEST(ConfigTest, ReadsTheBlocksOfFp8Scales) {
  using Block = std::array<int64_t, 2>;
  EXPECT_EQ(BlockOf("null"), (Block{128, 128}));
  EXPECT_EQ(BlockOf(R"({"quant_method": "fp8"})"), (Block{128, 128}));
  EXPECT_EQ(BlockOf(R"({"quant_method": "fp8", "weight_block_size": null})"), (Block{128, 128}));
  EXPECT_EQ(BlockOf(R"({"quant_method": "fp8", "weight_block_size": [64, 32]})"), (Block{64, 32}));
  EXPECT_EQ(BlockOf(R"({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {
      "group_0": {"weights": {"strategy": "block", "block_structure": [16, 256]}},
      "group_1": {"weights": {"strategy": "tensor", "block_structure": null}}, "group_2": {"weights": null}}})"),
            (Block{16, 256}));
  const std::optional<std::string> error = Refusal([] {
    (void)BlockOf(R"({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {
        "a": {"weights": {"block_structure": [16, 16]}}, "b": {"weights": {"block_structure": [16, 32]}}}})");
  });
  EXPECT_NE(error.value_or("").find("config_groups: b: expected weights like those of the groups before"),
            std::string::npos)
      << error.value_or("accepted");
}

std::string PackedAs(const std::string& quantization) {
  const Json config = Json::parse(R"({"quantization_config": )" + quantization + "}");
  const std::optional<PackedFormat> format = PackedFormatOfWeights(JsonObject(config, "config.json"));
  return format ? ShowPacked(*format) : "not";
}

TEST(ConfigTest, ReadsHowMatricesArePacked) {
  EXPECT_EQ(PackedAs("null"), "not");
  EXPECT_EQ(PackedAs(R"({"quant_method": "fp8"})"), "not");
  EXPECT_EQ(PackedAs(R"({"quant_method": "awq", "version": "GEMM", "group_size": 64})"), "awq, 4 bits, groups of 64");
  EXPECT_EQ(PackedAs(R"({"quant_method": "gptq", "bits": 8, "group_size": -1, "dynamic": {"-:.*up": {}}})"),
            "gptq, 8 bits, one scale a row");
  const auto compressed = [](const std::string& weights) {
    return PackedAs(R"({"quant_method": "compressed-tensors", "format": "pack-quantized", "transform_config": {},
        "sparsity_config": {"format": "dense"}, "config_groups": {"group_0": {"weights": )" +
                    weights + "}}}");
  };
  EXPECT_EQ(compressed(R"({"num_bits": 4, "group_size": 32})"), "compressed-tensors, 4 bits, groups of 32");
  EXPECT_EQ(compressed(R"({"num_bits": 8, "strategy": "channel", "group_size": null})"),
            "compressed-tensors, 8 bits, one scale a row");
  EXPECT_EQ(compressed(R"({"num_bits": 8, "strategy": "tensor"})"), "compressed-tensors, 8 bits, one scale a matrix");
}

TEST(ConfigTest, ReadsTheBlocksOfTheTextOfAFolderOfMore) {
  const Json config = Json::parse(R"({"text_config": {"hidden_size": 8},
      "quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}})");
  EXPECT_EQ(ScaleBlockOfWeights(JsonObject(config, "config.json")), (std::array<int64_t, 2>{64, 64}));
}

TEST(ConfigTest, MissingFolderIsRefused) {
  const std::optional<std::string> error = Refusal([] { (void)ModelConfig("/nowhere/model"); });
  ASSERT_TRUE(error.has_value());
  EXPECT_NE(error->find("/nowhere/model: there is no such folder"), std::string::npos) << *error;
}

class GenerationDefaultsTest : public testing::Test {
 protected:
  GenerationDefaults Load(const std::string& config, const std::string& generation) {
    Json whole = BaseConfig();
    for (const char* key : {"bos_token_id", "eos_token_id"}) whole.erase(key);
    whole.update(Json::parse(config));
    WriteFile(folder_ / "config.json", whole.dump());
    if (!generation.empty()) WriteFile(folder_ / "generation_config.json", generation);
    return ModelConfig(folder_.path()).Defaults();
  }

  ScratchFolder folder_;
};

TEST_F(GenerationDefaultsTest, ComeFromConfig) {
  const GenerationDefaults defaults = Load(R"({"bos_token_id": 1, "eos_token_id": [2, 5]})", "");
  EXPECT_EQ(defaults.bos, 1);
  EXPECT_EQ(defaults.eos, (std::vector<int32_t>{2, 5}));
}

TEST_F(GenerationDefaultsTest, GenerationConfigComesFirst) {
  const GenerationDefaults defaults =
      Load(R"({"bos_token_id": 1, "eos_token_id": 2})", R"({"eos_token_id": [128001, 128009], "temperature": 0.6})");
  EXPECT_EQ(defaults.bos, 1);
  EXPECT_EQ(defaults.eos, (std::vector<int32_t>{128001, 128009}));
}

TEST_F(GenerationDefaultsTest, OtherFieldsMayBeOfAnyType) {
  const GenerationDefaults defaults =
      Load(R"({"bos_token_id": 1, "eos_token_id": [2, 5]})",
           R"({"eos_token_id": null, "bos_token_id": null, "pad_token_id": [0], "max_length": "long",
               "temperature": NaN, "suppress_tokens": {"a": [null]}, "_from_model_config": true})");
  EXPECT_EQ(defaults.bos, 1);
  EXPECT_EQ(defaults.eos, (std::vector<int32_t>{2, 5}));
}

TEST_F(GenerationDefaultsTest, MayBeAbsent) {
  const GenerationDefaults defaults = Load(R"({"bos_token_id": null})", "");
  EXPECT_EQ(defaults.bos, std::nullopt);
  EXPECT_TRUE(defaults.eos.empty());
}

TEST_F(GenerationDefaultsTest, BadIdsAreRefused) {
  for (const char* value : {"\"2\"", "-3", "1.5", "99999999999", "[\"a\"]", "[[1]]", "{}"}) {
    const std::optional<std::string> error =
        Refusal([&] { (void)Load(fmt::format(R"({{"eos_token_id": {}}})", value), ""); });
    ASSERT_TRUE(error.has_value()) << value;
    EXPECT_NE(error->find("eos_token_id"), std::string::npos) << *error;
    EXPECT_NE(error->find("config.json"), std::string::npos) << *error;
  }
}

}  // namespace
}  // namespace runahead
