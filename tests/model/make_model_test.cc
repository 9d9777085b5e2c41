// Models with random weights: complete, the same for the same seed, and drawn from the distribution they claim.
#include "model/make_model.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <set>

#include "base/file.h"
#include "model/model_info.h"
#include "model/random_weights.h"
#include "tests/model/model_testing.h"

namespace runahead {
namespace {

std::vector<std::string> TinyPresets() {
  std::vector<std::string> names;
  for (const std::string_view name : PresetNames()) {
    if (name.starts_with("tiny-")) names.emplace_back(name);
  }
  return names;
}

class TinyPresetTest : public testing::TestWithParam<std::string> {};

TEST_P(TinyPresetTest, LoadsAndRuns) {
  const ScratchFolder folder;
  MakeModel(GetParam(), folder.path(), 3);
  const ModelInfo info = DescribeModel(folder.path());
  EXPECT_EQ(info.weights.dtypes, std::vector<std::string>{"BF16"});
  Runner runner(folder.path(), Backend::kScalar, 40);
  std::vector<int32_t> tokens(40);
  std::iota(tokens.begin(), tokens.end(), 60);
  const std::vector<float> logits = runner.Logits(tokens);
  for (const float logit : logits) ASSERT_TRUE(std::isfinite(logit));
  const auto [smallest, largest] = std::minmax_element(logits.begin(), logits.end());
  EXPECT_GT(*largest - *smallest, 1) << "random weights must tell tokens apart";
}

TEST_P(TinyPresetTest, WeightsBeginWithALineOfACache) {
  const ScratchFolder folder;
  MakeModel(GetParam(), folder.path(), 3);
  const std::string bytes = ReadFile(folder / "model.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  EXPECT_EQ((sizeof header + header) % 64, 0u);
}

TEST_P(TinyPresetTest, TokenizerHasEveryIdOnce) {
  const ScratchFolder folder;
  MakeModel(GetParam(), folder.path(), 3);
  const Json tokenizer = LoadJson(folder / "tokenizer.json");
  std::set<int64_t> ids;
  for (const auto& [text, id] : tokenizer["model"]["vocab"].items()) ids.insert(id.get<int64_t>());
  const int64_t vocab = ModelConfig(folder.path()).spec().vocab;
  EXPECT_EQ(static_cast<int64_t>(ids.size()), vocab);
  EXPECT_EQ(*ids.rbegin(), vocab - 1);
  EXPECT_EQ(tokenizer["model"]["vocab"]["A"], 65);
  const GenerationDefaults defaults = ModelConfig(folder.path()).Defaults();
  EXPECT_EQ(tokenizer["added_tokens"][0]["id"], *defaults.bos);
  EXPECT_EQ(tokenizer["added_tokens"][1]["id"], defaults.eos.at(0));
}

INSTANTIATE_TEST_SUITE_P(Presets, TinyPresetTest, testing::ValuesIn(TinyPresets()), [](const auto& instance) {
  std::string name = instance.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(MakeModelTest, SeedDecidesTheWeights) {
  const ScratchFolder folder;
  MakeModel("tiny-llama-mha", folder / "a", 1);
  MakeModel("tiny-llama-mha", folder / "b", 1);
  MakeModel("tiny-llama-mha", folder / "c", 2);
  EXPECT_EQ(ReadFile(folder / "a/model.safetensors"), ReadFile(folder / "b/model.safetensors"));
  EXPECT_NE(ReadFile(folder / "a/model.safetensors"), ReadFile(folder / "c/model.safetensors"));
}

TEST(MakeModelTest, ShardsHoldTheSameWeights) {
  const ScratchFolder folder;
  MakeModel("tiny-llama", folder / "whole", 1);
  MakeModel("tiny-llama", folder / "shards", 1, {}, 100'000);
  EXPECT_GE(DescribeModel(folder / "shards").weights.files, 4);
  const std::vector<int32_t> tokens = {5, 6, 7, 256, 300};
  EXPECT_EQ(Runner(folder / "whole", Backend::kScalar, 5).Logits(tokens),
            Runner(folder / "shards", Backend::kScalar, 5).Logits(tokens));
}

TEST(MakeModelTest, ReportsProgress) {
  const ScratchFolder folder;
  std::vector<double> shares;
  MakeModel("tiny-llama", folder.path(), 1, [&](double share) { shares.push_back(share); });
  EXPECT_TRUE(std::is_sorted(shares.begin(), shares.end()));
  EXPECT_EQ(shares.back(), 1);
}

TEST(MakeModelTest, RefusesAFolderThatIsNotEmpty) {
  const ScratchFolder folder;
  WriteFile(folder / "precious.txt", "text");
  const std::optional<std::string> error = Refusal([&] { MakeModel("tiny-llama", folder.path(), 1); });
  ASSERT_TRUE(error.has_value());
  EXPECT_NE(error->find(folder.path().string()), std::string::npos) << *error;
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(MakeModelTest, RefusesAPlaceThatCannotBeAFolder) {
  const ScratchFolder folder;
  WriteFile(folder / "file", "text");
  EXPECT_TRUE(Refusal([&] { MakeModel("tiny-llama", folder / "file", 1); }).has_value());
  EXPECT_TRUE(Refusal([&] { MakeModel("tiny-llama", folder / "file/below", 1); }).has_value());
}

TEST(MakeModelTest, RefusesAnUnknownPreset) {
  const ScratchFolder folder;
  const std::optional<std::string> error = Refusal([&] { MakeModel("llama-9000b", folder / "x", 1); });
  ASSERT_TRUE(error.has_value());
  EXPECT_NE(error->find("llama-9000b"), std::string::npos) << *error;
  EXPECT_NE(error->find("llama-7b"), std::string::npos) << *error;
  EXPECT_FALSE(std::filesystem::exists(folder / "x"));
}

TEST(RandomWeightsTest, QuantilesAreThoseOfANormalDistribution) {
  const std::vector<float> quantiles = NormalQuantiles();
  ASSERT_EQ(quantiles.size(), 65536U);
  for (size_t k = 0; k < quantiles.size(); ++k) {
    const double below = 0.5 * std::erfc(-static_cast<double>(quantiles[k]) / std::sqrt(2.0));
    ASSERT_NEAR(below, (static_cast<double>(k) + 0.5) / 65536, 1e-7) << k;
  }
}

TEST(RandomWeightsTest, NumbersFollowTheDistribution) {
  constexpr size_t kCount = 1 << 20;
  const NormalBf16 normal(NormalQuantiles(), 0.02);
  std::vector<BFloat16> values(kCount);
  normal.Fill(42, 0, values);
  double sum = 0;
  double squares = 0;
  double neighbours = 0;
  size_t beyond_two = 0;
  for (size_t i = 0; i < kCount; ++i) {
    const double x = static_cast<float>(values[i]) / 0.02;
    sum += x;
    squares += x * x;
    if (i > 0) neighbours += x * static_cast<float>(values[i - 1]) / 0.02;
    if (std::abs(x) > 2) ++beyond_two;
  }
  const double error = 5 / std::sqrt(static_cast<double>(kCount));  // five standard errors
  EXPECT_NEAR(sum / kCount, 0, error);
  EXPECT_NEAR(squares / kCount, 1, 2 * error);
  EXPECT_NEAR(neighbours / kCount, 0, error);
  EXPECT_NEAR(static_cast<double>(beyond_two) / kCount, 0.0455, error);
}

TEST(RandomWeightsTest, BlocksMayBeFilledInAnyOrder) {
  const NormalBf16 normal(NormalQuantiles(), 1);
  std::vector<BFloat16> whole(1003);
  normal.Fill(7, 0, whole);
  std::vector<BFloat16> part(1003 - 400);
  normal.Fill(7, 400, part);
  for (size_t i = 0; i < part.size(); ++i) ASSERT_EQ(part[i].bits, whole[400 + i].bits) << i;
}

}  // namespace
}  // namespace runahead
