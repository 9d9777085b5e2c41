// Models whose matrices are so large that a CPU multiplies them where the mapped file holds them.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "model/random_weights.h"
#include "model/weight_list.h"
#include "tests/engine/outcome.h"
#include "tests/model/model_testing.h"
#include "tests/tensor/sized_device.h"

namespace runahead {
namespace {

constexpr int64_t kHidden = 32;
/// Rows of f32 that fill a little more than 8 MB.
constexpr int64_t kManyRows = (int64_t{8} << 20) / (4 * kHidden) + 1;

/// A golden model's configuration with one layer, and an MLP and a vocabulary of `rows`, in a folder that goes away.
class WideModel {
 public:
  WideModel(const std::string& golden, DType stored, int64_t rows) {
    Json config = LoadJson(GoldenFolder() / golden / "config.json");
    config["num_hidden_layers"] = 1;
    config["vocab_size"] = rows;
    config["tie_word_embeddings"] = true;
    config[config.contains("ffn_hidden_size") ? "ffn_hidden_size" : "intermediate_size"] = rows;
    WriteFile(folder_ / "config.json", config.dump());
    Json header = Json::object();
    std::string data;
    const std::vector<float> quantiles = NormalQuantiles();
    WeightSources sources = ModelConfig(folder_.path()).sources();
    sources.head.name = sources.embedding.name;
    for (const NamedShape& tensor : ListWeights(sources)) {
      const size_t begin = data.size();
      Append(quantiles, stored, tensor, data);
      std::vector<int64_t> shape{tensor.shape[0]};
      if (tensor.shape.rank() > 1) shape.push_back(tensor.shape[1]);
      header[tensor.name] = {{"dtype", stored == DType::kF32 ? "F32" : "BF16"},
                             {"shape", shape},
                             {"data_offsets", {begin, data.size()}}};
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    WriteFile(folder_ / "model.safetensors", SafetensorsBytes(text, data));
  }

  [[nodiscard]] const std::filesystem::path& path() const { return folder_.path(); }

  /// Moves all tensors by a byte.
  void Unalign() const {
    const std::string bytes = ReadFile(folder_ / "model.safetensors");
    size_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof(length));
    WriteFile(folder_ / "model.safetensors",
              SafetensorsBytes(bytes.substr(8, length) + " ", bytes.substr(8 + length)));
  }

 private:
  /// Norm weights around 1, biases, the embedding's unit rows, and matrices that keep the size of what they multiply.
  static void Append(const std::vector<float>& quantiles, DType stored, const NamedShape& tensor, std::string& data) {
    const auto elements = static_cast<size_t>(tensor.shape.elements());
    const bool matrix = tensor.shape.rank() > 1;
    const double sigma = matrix ? 1 / std::sqrt(static_cast<double>(tensor.shape[1])) : 0.3;
    std::vector<BFloat16> values(elements);
    NormalBf16(quantiles, sigma).Fill(Mix(data.size() + 1), 0, values);
    const float mean = tensor.name.ends_with("norm.weight") ? 1 : 0;
    for (const BFloat16 value : values) {
      const float number = static_cast<float>(value) + mean;
      const BFloat16 rounded(number);
      data.append(
          stored == DType::kF32 ? reinterpret_cast<const char*>(&number) : reinterpret_cast<const char*>(&rounded),
          SizeOf(stored));
    }
  }

  ScratchFolder folder_;
};

class InPlaceTest : public testing::TestWithParam<std::tuple<const char*, DType>> {};

TEST_P(InPlaceTest, ComputesWhatTheOracleComputes) {
  const auto [golden, dtype] = GetParam();
  const bool exact = dtype == DType::kF32;
  const int64_t rows = exact ? kManyRows : 2 * kManyRows;
  EXPECT_TRUE(MakeCpuOps(*MakeCpuDevice(), 1)->LeavesInPlace({rows, kHidden}, dtype, dtype));
  const WideModel model(golden, dtype, rows);
  EngineOptions engine_options;
  engine_options.devices = "cpu:3";
  engine_options.threads_per_rank = 1;
  engine_options.dtype = std::string(Name(dtype));
  const auto engine = LoadEngineState(model.path(), engine_options);
  Runner oracle(model.path(), Backend::kScalar, 32, dtype);
  const double tolerance = exact ? 1e-4 : 16 * UnitRoundoff(dtype);
  for (const int64_t length : {1, 3, 19}) {
    SCOPED_TRACE(testing::Message() << length << " tokens");
    const std::vector<int32_t> prompt = RandomPrompt(length, rows, static_cast<unsigned>(length));
    const std::vector<float> expected = oracle.Logits(prompt);
    const PhaseOutcome single = RunOnce(engine, prompt, {Strategy::kSingle, Topology::kChain, {}, 0, false});
    ExpectClose(single.logits, expected, tolerance, "logits against the oracle's");
    for (const Topology topology : {Topology::kChain, Topology::kDirect}) {
      SCOPED_TRACE(Name(topology));
      const PrefillOptions options{Strategy::kRunahead, topology, {PartitionKind::kEven, {}}, 3, false};
      const PhaseOutcome several = RunOnce(engine, prompt, options);
      ExpectClose(several.logits, expected, tolerance, "logits against the oracle's");
      ExpectSameTokens(several, single, tolerance);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, InPlaceTest,
                         testing::Combine(testing::Values("llama-biases-f32", "phi3-window-bf16", "falcon-7b-bf16"),
                                          testing::Values(DType::kF32, DType::kBF16)),
                         [](const auto& instance) {
                           std::string name = std::string(std::get<0>(instance.param)) + "_in_" +
                                              std::string(Name(std::get<1>(instance.param)));
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(InPlaceMemoryTest, OnlyCopiesAreCounted) {
  const WideModel model("llama-biases-f32", DType::kF32, kManyRows);
  SizedDevice small("small", size_t{4} << 20, true);
  const std::unique_ptr<Ops> ops = MakeCpuOps(small, 1);
  const auto refusal = [&](DType compute) {
    return Refusal([&] { LoadDecoder(model.path(), compute, *ops); }).value_or("loaded");
  };
  EXPECT_EQ(refusal(DType::kF32), "loaded");
  EXPECT_NE(refusal(DType::kBF16).find("small has"), std::string::npos) << "what is converted is copied";
  model.Unalign();
  EXPECT_NE(refusal(DType::kF32).find("small has"), std::string::npos) << "what lies unaligned is copied";
}

}  // namespace
}  // namespace runahead
