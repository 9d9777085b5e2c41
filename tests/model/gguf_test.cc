// GGUF files: what is read from good ones against what others read (tools/make_gguf_goldens.py), and errors of bad
// ones.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "base/gguf_file.h"
#include "model/gguf/dequantise.h"
#include "model/model_info.h"
#include "runahead/tokenizer.h"
#include "tests/model/model_testing.h"

namespace runahead {
namespace {

std::filesystem::path GgufFolder() { return std::filesystem::path(SourceDir()) / "tests" / "model" / "gguf"; }

TEST(GgufTest, BlocksBecomeTheNumbersThatGgufMakes) {
  const std::string bytes = ReadFile(GgufFolder() / "blocks.bin");
  const Json index = LoadJson(GgufFolder() / "blocks.json");
  ASSERT_EQ(index.size(), 8U);
  for (const Json& entry : index) {
    const gguf::ElementType* type = gguf::TypeNamed(entry["type"].get<std::string>());
    ASSERT_NE(type, nullptr) << entry;
    const auto begin = entry["begin"].get<size_t>();
    const size_t size = entry["blocks"].get<size_t>() * type->bytes;
    std::vector<float> expected(entry["blocks"].get<size_t>() * static_cast<size_t>(type->block));
    std::memcpy(expected.data(), bytes.data() + begin + size, expected.size() * sizeof(float));
    std::vector<float> values(expected.size());
    gguf::Dequantise(*type, std::as_bytes(std::span(bytes).subspan(begin, size)), values.data());
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(expected[i])) << entry << " " << i;
    }
  }
}

class GgufModelTest : public testing::TestWithParam<std::tuple<const char*, Backend>> {};

TEST_P(GgufModelTest, LogitsAndGreedyTokensEqualTransformers) {
  const auto& [name, backend] = GetParam();
  const Json golden = LoadJson(GgufFolder() / (std::string(name) + ".json"));
  Runner runner(GgufFolder() / (std::string(name) + ".gguf"), backend, 128);
  for (const Json& prompt : golden["prompts"]) {
    const auto ids = prompt["ids"].get<std::vector<int32_t>>();
    std::vector<float> logits = runner.Logits(std::span(ids).first(1));
    EXPECT_LE(RelativeError(logits, prompt["first_logits"].get<std::vector<double>>()), 1e-4);
    logits = runner.Logits(ids);
    EXPECT_LE(RelativeError(logits, prompt["last_logits"].get<std::vector<double>>()), 1e-4);
    std::vector<int32_t> greedy;
    while (greedy.size() < prompt["greedy"].size()) {
      greedy.push_back(ArgMax(logits));
      logits = runner.Logits(std::span(&greedy.back(), 1), std::ssize(ids) + std::ssize(greedy) - 1);
    }
    EXPECT_EQ(greedy, prompt["greedy"].get<std::vector<int32_t>>());
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GgufModelTest,
                         testing::Combine(testing::Values("llama", "qwen2", "qwen3"),
                                          testing::Values(Backend::kScalar, Backend::kCpu)),
                         [](const auto& instance) {
                           return std::string(std::get<0>(instance.param)) + BackendName(std::get<1>(instance.param));
                         });

TEST(GgufTest, TokenizersGiveTheIdsOfTheirMakers) {
  for (const char* name : {"llama", "qwen2"}) {
    const Json golden = LoadJson(GgufFolder() / (std::string(name) + ".json"));
    const Tokenizer tokenizer = Tokenizer::Load(GgufFolder() / (std::string(name) + ".gguf"));
    ASSERT_GE(golden["texts"].size(), 4U);
    for (size_t i = 0; i < golden["texts"].size(); ++i) {
      const auto text = golden["texts"][i].get<std::string>();
      const std::vector<int32_t> ids = tokenizer.Encode(text);
      EXPECT_EQ(ids, golden["ids"][i].get<std::vector<int32_t>>()) << name << ": " << text;
      EXPECT_EQ(tokenizer.Decode(ids, false).find(text) != std::string::npos, true) << name << ": " << text;
    }
    EXPECT_EQ(tokenizer.bos_id(), 1);
    EXPECT_EQ(tokenizer.eos_id(), 2);
    EXPECT_EQ(tokenizer.SpecialToken(2), "</s>");
  }
}

TEST(GgufTest, ConfigurationComesFromTheMetadata) {
  const ModelConfig config(GgufFolder() / "llama.gguf");
  EXPECT_EQ(config.spec().architecture, "LlamaForCausalLM");
  EXPECT_EQ(config.spec().head_dim, 32);
  EXPECT_EQ(config.spec().weights, DType::kBF16);
  EXPECT_FALSE(config.spec().tied_head);
  EXPECT_EQ(config.Defaults().eos, std::vector<int32_t>{2});
  const ModelInfo info = DescribeModel(config);
  EXPECT_TRUE(info.ignored.empty());
  EXPECT_EQ(info.weights.dtypes,
            (std::vector<std::string>{"F32", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"}));
  EXPECT_TRUE(ModelConfig(GgufFolder() / "qwen2.gguf").spec().tied_head);
}

/// Files that go away, made from a good one.
class BadGgufTest : public testing::Test {
 protected:
  BadGgufTest() : bytes_(ReadFile(GgufFolder() / "qwen3.gguf")) {}

  /// The offset of what follows the name of a key or a tensor.
  size_t Behind(const std::string& name) const {
    const size_t at = bytes_.find(name);
    CHECK(at != std::string::npos);
    return at + name.size();
  }

  template <typename T>
  void Put(size_t at, T value) {
    std::memcpy(bytes_.data() + at, &value, sizeof value);
  }
  void PutInt(const std::string& key, uint32_t value) { Put(Behind(key) + sizeof(uint32_t), value); }
  void Rename(const std::string& from, const std::string& to) {
    CHECK(from.size() == to.size());
    bytes_.replace(bytes_.find(from), from.size(), to);
  }

  std::string RefusalOf(const std::string& bytes) {
    const std::filesystem::path path = folder_ / "model.gguf";
    WriteFile(path, bytes);
    const auto refusal = Refusal([&] {
      const std::unique_ptr<Device> device = MakeCpuDevice();
      const std::unique_ptr<Ops> ops = MakeCpuOps(*device, 1);
      (void)LoadDecoder(path, DType::kF32, *ops);
    });
    return refusal.value_or("");
  }

  /// Each refusal is of one line and names what is wrong.
  void ExpectRefused(const std::vector<std::string>& words) {
    const std::string error = RefusalOf(bytes_);
    EXPECT_NE(error.find("model.gguf"), std::string::npos) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
    for (const std::string& word : words)
      EXPECT_NE(error.find(word), std::string::npos) << error << " without " << word;
    bytes_ = ReadFile(GgufFolder() / "qwen3.gguf");
  }

  std::string bytes_;
  ScratchFolder folder_;
};

TEST_F(BadGgufTest, GoodAsItIs) { EXPECT_EQ(RefusalOf(bytes_), ""); }

TEST_F(BadGgufTest, EveryCutIsNoticed) {
  for (size_t size = 0; size < bytes_.size(); size += size < 1500 ? 7 : 997) {
    EXPECT_NE(RefusalOf(bytes_.substr(0, size)), "") << size << " bytes";
  }
  EXPECT_NE(RefusalOf(bytes_.substr(0, bytes_.size() - 64)), "");
}

TEST_F(BadGgufTest, Headers) {
  Put<uint8_t>(0, 'X');
  ExpectRefused({"header", "expected GGUF", "0x46554758"});
  Put<uint32_t>(4, 1);
  ExpectRefused({"header", "version 2 or 3", "1"});
  Put<uint32_t>(4, 0x03000000);
  ExpectRefused({"big-endian"});
  Put<uint64_t>(16, UINT64_MAX);  // metadata
  ExpectRefused({"of 18446744073709551615"});
  Put<uint64_t>(8, UINT64_MAX);  // tensors
  ExpectRefused({"of 18446744073709551615"});
}

TEST_F(BadGgufTest, Metadata) {
  Put<uint64_t>(Behind("general.architecture") + 4, UINT64_MAX);
  ExpectRefused({"general.architecture", "18446744073709551615", "go beyond"});
  Put<uint32_t>(Behind("qwen3.block_count"), 13);
  ExpectRefused({"qwen3.block_count", "type of value", "13"});
  Put<uint32_t>(Behind("qwen3.block_count"), 9);  // an array of arrays
  PutInt("qwen3.block_count", 9);
  ExpectRefused({"qwen3.block_count", "array of arrays"});
  PutInt("qwen3.block_count", 0);
  ExpectRefused({"qwen3.block_count", "1 to", "got 0"});
  PutInt("qwen3.block_count", 3);
  ExpectRefused({"blk.2.", "missing"});
  PutInt("qwen3.attention.key_length", 18);
  ExpectRefused({"qwen3.attention.value_length", "18", "got 16"});
  PutInt("qwen3.rope.dimension_count", 8);
  ExpectRefused({"qwen3.rope.dimension_count", "16", "got 8"});
  Rename("qwen3.block_count", "qwen3.clock_bount");
  ExpectRefused({"qwen3.clock_bount", "not supported"});
  Rename("qwen3.block_count", "other.block_count");
  ExpectRefused({"qwen3.block_count", "missing"});
  Rename("qwen3.context_length", "qwen3.context_lengt\n");
  ExpectRefused({"visible ASCII"});
  bytes_.replace(Behind("general.architecture") + 12, 5, "qwen9");
  ExpectRefused({"general.architecture", "llama, qwen2, qwen3", "'qwen9'"});
}

TEST_F(BadGgufTest, Tensors) {
  const size_t gate = Behind("blk.0.ffn_gate.weight");  // u32 dimensions, u64 extents, u32 type, u64 offset
  Put<uint32_t>(gate, 5);
  ExpectRefused({"blk.0.ffn_gate.weight", "1 to 4 dimensions", "got 5"});
  Put<uint64_t>(gate + 4, 0);
  ExpectRefused({"blk.0.ffn_gate.weight", "got 0"});
  Put<uint64_t>(gate + 4, uint64_t{1} << 40);
  ExpectRefused({"blk.0.ffn_gate.weight", "go beyond"});
  Put<uint64_t>(gate + 4, 31);
  ExpectRefused({"blk.0.ffn_gate.weight", "expected shape", "31"});
  Put<uint32_t>(gate + 20, 12);
  ExpectRefused({"blk.0.ffn_gate.weight", "256 elements of Q4_K", "got 32"});
  Put<uint32_t>(gate + 20, 19);
  ExpectRefused({"blk.0.ffn_gate.weight", "Q4_K", "type 19"});
  Put<uint64_t>(gate + 24, 33);
  ExpectRefused({"blk.0.ffn_gate.weight", "multiple of 32", "got 33"});
  Put<uint64_t>(gate + 24, uint64_t{1} << 62);
  ExpectRefused({"blk.0.ffn_gate.weight", "goes beyond"});
  Rename("blk.0.ffn_gate.weight", "blk.1.ffn_gate.weight");
  ExpectRefused({"blk.1.ffn_gate.weight", "twice"});
}

TEST(GgufTest, TokenizersOfBadFilesAreRefused) {
  ScratchFolder folder;
  const std::string good = ReadFile(GgufFolder() / "qwen2.gguf");
  const auto refusal_of = [&](std::string_view from, std::string_view to) {
    std::string bytes = good;
    bytes.replace(bytes.find(from), to.size(), to);
    WriteFile(folder / "model.gguf", bytes);
    return Refusal([&] { (void)Tokenizer::Load(folder / "model.gguf"); }).value_or("");
  };
  EXPECT_NE(refusal_of("gpt2", "wpm2").find("tokenizer.ggml.model: expected gpt2 or llama, got 'wpm2'"),
            std::string::npos);
  EXPECT_NE(refusal_of("tokenizer.ggml.pre", "tokenizer.ggml.prx").find("tokenizer.ggml.pre: missing"),
            std::string::npos);
  EXPECT_NE(refusal_of("</s>", "<\xff>x").find("tokenizer.ggml.tokens[2]: is not UTF-8"), std::string::npos);
}

}  // namespace
}  // namespace runahead
