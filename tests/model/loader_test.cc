// Loading a model: what must be there, and what is said when it is not.
#include <gtest/gtest.h>

#include <functional>

#include "model/make_model.h"
#include "model/model_info.h"
#include "model/model_loader.h"
#include "tests/model/model_testing.h"
#include "tests/tensor/sized_device.h"

namespace runahead {
namespace {

class LoaderTest : public testing::Test {
 protected:
  LoaderTest() : device_(MakeCpuDevice()), ops_(MakeScalarOps(*device_)) {}

  /// A copy of a golden model, to be damaged.
  void CopyGolden(const std::string& name) {
    std::filesystem::copy(GoldenFolder() / name, folder_.path(), std::filesystem::copy_options::recursive);
  }

  /// Rewrites the header of model.safetensors with `edit`.
  void EditHeader(const std::function<void(Json& header)>& edit) {
    const std::string bytes = ReadFile(folder_ / "model.safetensors");
    size_t length = 0;
    for (size_t i = 0; i < 8; ++i) length |= size_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    Json header = Json::parse(bytes.substr(8, length));
    edit(header);
    WriteFile(folder_ / "model.safetensors", SafetensorsBytes(header.dump(), bytes.substr(8 + length)));
  }

  std::string LoadRefusal() {
    const std::optional<std::string> error = Refusal([&] { LoadDecoder(folder_.path(), DType::kF32, *ops_); });
    return error.value_or("loaded");
  }

  ScratchFolder folder_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Ops> ops_;
};

constexpr const char* kNorm = "model.layers.1.input_layernorm.weight";
constexpr const char* kDown = "model.layers.0.mlp.down_proj.weight";

TEST_F(LoaderTest, ReportsProgressUpToTheEnd) {
  std::vector<double> shares;
  const auto decoder = LoadDecoder(GoldenFolder() / "llama-mha-f32", DType::kF32, *ops_,
                                   [&](double share) { shares.push_back(share); });
  ASSERT_GE(shares.size(), 3U);
  EXPECT_TRUE(std::is_sorted(shares.begin(), shares.end()));
  EXPECT_EQ(shares.front(), 0);
  EXPECT_EQ(shares.back(), 1);
  EXPECT_EQ(decoder->compute_dtype(), DType::kF32);
}

TEST_F(LoaderTest, WeightsThatCannotBeQuantisedAreNamed) {
  CopyGolden("llama-mha-f32");
  std::string bytes = ReadFile(folder_ / "model.safetensors");
  size_t length = 0;
  for (size_t i = 0; i < 8; ++i) length |= size_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  const Json header = Json::parse(bytes.substr(8, length));
  const auto begin = header.at(kDown).at("data_offsets").at(0).get<size_t>();
  bytes.replace(8 + length + begin + 4 * 30, 4, std::string("\x00\x00\xc0\x7f", 4));  // row 1 of 24 columns
  WriteFile(folder_ / "model.safetensors", bytes);
  const std::unique_ptr<Ops> ops = MakeCpuOps(*device_, 1);
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    const std::optional<std::string> error =
        Refusal([&] { LoadDecoder(folder_.path(), DType::kF32, *ops, {}, format); });
    ASSERT_TRUE(error.has_value());
    EXPECT_NE(error->find(std::string(kDown) + "': [1, 6] is nan"), std::string::npos) << *error;
  }
  EXPECT_EQ(LoadDecoder(folder_.path(), DType::kF32, *ops)->weight_format(), WeightFormat::kStored);
}

TEST_F(LoaderTest, MissingTensorIsNamed) {
  CopyGolden("llama-mha-f32");
  EditHeader([](Json& header) {
    header["other"] = header[kNorm];
    header.erase(kNorm);
  });
  const std::string error = LoadRefusal();
  EXPECT_NE(error.find("model.safetensors"), std::string::npos) << error;
  EXPECT_NE(error.find(kNorm), std::string::npos) << error;
  EXPECT_NE(error.find("[32]"), std::string::npos) << error;
}

TEST_F(LoaderTest, MissingHeadIsNamedUnlessTied) {
  CopyGolden("llama-mha-f32");
  EditHeader([](Json& header) {
    header["other"] = header["lm_head.weight"];
    header.erase("lm_head.weight");
  });
  EXPECT_NE(LoadRefusal().find("lm_head.weight"), std::string::npos);
  Json config = LoadJson(folder_ / "config.json");
  config["tie_word_embeddings"] = true;
  WriteFile(folder_ / "config.json", config.dump());
  EXPECT_EQ(LoadRefusal(), "loaded");
}

// Some programs write a tied matrix once, under the name of the head.
TEST_F(LoaderTest, ATiedMatrixMayHaveEitherName) {
  CopyGolden("llama-gqa-tied-bf16");
  const std::vector<int32_t> ids{1, 2, 3};
  const std::vector<float> expected = Runner(folder_.path(), Backend::kScalar, 16).Logits(ids);
  EditHeader([](Json& header) {
    header["lm_head.weight"] = header["model.embed_tokens.weight"];
    header.erase("model.embed_tokens.weight");
  });
  EXPECT_EQ(Runner(folder_.path(), Backend::kScalar, 16).Logits(ids), expected);
  EXPECT_TRUE(DescribeModel(folder_.path()).ignored.empty());
  EditHeader([](Json& header) {
    header["other"] = header["lm_head.weight"];
    header.erase("lm_head.weight");
  });
  EXPECT_NE(LoadRefusal().find("model.embed_tokens.weight is missing"), std::string::npos) << LoadRefusal();
}

TEST_F(LoaderTest, ADTypeOfAutoIsThatOfTheFiles) {
  CopyGolden("llama-gqa-tied-bf16");
  Json config = LoadJson(folder_ / "config.json");
  for (const char* key : {"dtype", "torch_dtype"}) config.erase(key);
  const auto dtype_with = [&](const Json& fields) {
    Json changed = config;
    changed.update(fields);
    WriteFile(folder_ / "config.json", changed.dump());
    return ModelConfig(folder_.path()).WeightDType();
  };
  EXPECT_EQ(dtype_with({{"dtype", "auto"}}), DType::kBF16);
  EXPECT_EQ(dtype_with({{"torch_dtype", "auto"}}), DType::kBF16);
  EXPECT_EQ(DescribeModel(folder_.path()).spec.weights, DType::kBF16);
  EXPECT_EQ(dtype_with({{"torch_dtype", "float16"}}), DType::kF16);
  EXPECT_EQ(dtype_with(Json::object()), DType::kF32);
  EditHeader([](Json& header) {  // the other name of the tied matrix
    header["lm_head.weight"] = header["model.embed_tokens.weight"];
    header.erase("model.embed_tokens.weight");
  });
  EXPECT_EQ(dtype_with({{"dtype", "auto"}}), DType::kBF16);
}

// HF transformers does the same: tied by the configuration, but different in the file.
TEST_F(LoaderTest, AHeadInTheFileIsBelieved) {
  CopyGolden("llama-mha-f32");
  Json config = LoadJson(folder_ / "config.json");
  config["tie_word_embeddings"] = true;
  WriteFile(folder_ / "config.json", config.dump());
  const Json golden = LoadJson(folder_ / "golden.json");
  const Json& prompt = golden["prompts"][1];
  Runner runner(folder_.path(), Backend::kScalar, 16);
  EXPECT_LE(RelativeError(runner.Logits(prompt["ids"].get<std::vector<int32_t>>()),
                          prompt["last_logits"].get<std::vector<double>>()),
            1e-4);
}

TEST_F(LoaderTest, WrongShapeIsNamed) {
  CopyGolden("llama-mha-f32");
  EditHeader([](Json& header) { header[kDown]["shape"] = {24, 32}; });
  const std::string error = LoadRefusal();
  EXPECT_NE(error.find(kDown), std::string::npos) << error;
  EXPECT_NE(error.find("expected shape [32, 24], got [24, 32]"), std::string::npos) << error;
}

TEST_F(LoaderTest, WrongDTypeIsNamed) {
  CopyGolden("llama-mha-f32");
  EditHeader([](Json& header) { header[kDown]["dtype"] = "I32"; });
  const std::string error = LoadRefusal();
  EXPECT_NE(error.find(kDown), std::string::npos) << error;
  EXPECT_NE(error.find("I32"), std::string::npos) << error;
}

TEST_F(LoaderTest, ConfigThatDoesNotFitTheFileIsNamed) {
  CopyGolden("llama-mha-f32");
  Json config = LoadJson(folder_ / "config.json");
  config["vocab_size"] = 54;
  WriteFile(folder_ / "config.json", config.dump());
  const std::string error = LoadRefusal();
  EXPECT_NE(error.find("model.embed_tokens.weight: expected shape [54, 32], got [53, 32]"), std::string::npos)
      << error;
}

TEST_F(LoaderTest, TruncatedFileIsNamed) {
  CopyGolden("llama-mha-f32");
  const std::filesystem::path path = folder_ / "model.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 100);
  const std::string error = LoadRefusal();
  EXPECT_TRUE(error.starts_with(path.string())) << error;
}

TEST_F(LoaderTest, MissingShardIsNamed) {
  CopyGolden("llama-linear-rope-shards-bf16");
  std::filesystem::remove(folder_ / "model-00002-of-00003.safetensors");
  const std::string error = LoadRefusal();
  EXPECT_NE(error.find("model-00002-of-00003.safetensors"), std::string::npos) << error;
}

TEST_F(LoaderTest, MissingWeightsAreNamed) {
  CopyGolden("llama-mha-f32");
  std::filesystem::remove(folder_ / "model.safetensors");
  EXPECT_NE(LoadRefusal().find("model.safetensors"), std::string::npos);
}

// The logits must not depend on where in the file the tensors lie.
TEST_F(LoaderTest, TensorsMayLieUnaligned) {
  CopyGolden("llama-mha-f32");
  Json golden = LoadJson(folder_ / "golden.json");
  const auto ids = golden["prompts"][1]["ids"].get<std::vector<int32_t>>();
  const std::vector<float> expected = Runner(folder_.path(), Backend::kScalar, 16).Logits(ids);
  for (int shift = 1; shift < 4; ++shift) {
    EditHeader([](Json& header) {
      const auto pad = header["__metadata__"].value("pad", std::string());
      header["__metadata__"]["pad"] = pad + "x";
    });
    EXPECT_EQ(Runner(folder_.path(), Backend::kScalar, 16).Logits(ids), expected);
  }
}

TEST_F(LoaderTest, MemoryIsCheckedFirst) {
  SizedDevice full("full", 1000, true);
  const std::unique_ptr<Ops> ops = MakeScalarOps(full);
  const std::optional<std::string> error =
      Refusal([&] { LoadDecoder(GoldenFolder() / "llama-mha-f32", DType::kF32, *ops); });
  ASSERT_TRUE(error.has_value());
  EXPECT_NE(error->find("llama-mha-f32"), std::string::npos) << *error;
  EXPECT_NE(error->find("full has 1000 bytes free"), std::string::npos) << *error;
  EXPECT_NE(error->find("layers in f32"), std::string::npos) << *error;
  EXPECT_NE(error->find("output head 6784 bytes"), std::string::npos) << *error;
  EXPECT_EQ(error->find("embedding"), std::string::npos) << "the file's own is used: " << *error;
}

TEST_F(LoaderTest, AnEmbeddingThatMustBeCopiedCounts) {
  SizedDevice full("full", 1000, false);
  const std::unique_ptr<Ops> ops = MakeScalarOps(full);
  const std::optional<std::string> error =
      Refusal([&] { LoadDecoder(GoldenFolder() / "llama-mha-f32", DType::kF32, *ops); });
  ASSERT_TRUE(error.has_value());
  EXPECT_NE(error->find("embedding 6784 bytes"), std::string::npos) << *error;
}

TEST(ModelInfoTest, DescribesAModel) {
  // vocab 53, hidden 32, ffn 24, 2 layers; 4 heads of 8.
  const int64_t layer = 4 * 32 * 32 + 3 * 32 * 24 + 2 * 32;
  const ModelInfo info = DescribeModel(GoldenFolder() / "llama-mha-f32");
  EXPECT_EQ(info.weights.parameters, 2 * 53 * 32 + 2 * layer + 32);
  EXPECT_EQ(info.weights.bytes, static_cast<size_t>(info.weights.parameters) * 4);
  EXPECT_EQ(info.weights.dtypes, std::vector<std::string>{"F32"});
  EXPECT_EQ(info.weights.files, 1);
  EXPECT_EQ(info.spec.kv_shape(info.spec.weights).BytesPerToken(), 2U * 2 * 32 * 4);
  EXPECT_EQ(info.spec.max_positions, 512);
}

TEST(ModelInfoTest, CountsATiedHeadOnceAndShards) {
  const ModelInfo tied = DescribeModel(GoldenFolder() / "llama-gqa-tied-bf16");
  EXPECT_EQ(tied.weights.parameters, 64 * 32 + 2 * (3 * 32 * 32 + 3 * 32 * 24 + 2 * 32) + 32);
  EXPECT_EQ(tied.weights.bytes, static_cast<size_t>(tied.weights.parameters) * 2);
  EXPECT_EQ(DescribeModel(GoldenFolder() / "llama-linear-rope-shards-bf16").weights.files, 3);
}

}  // namespace
}  // namespace runahead
