// Every model of tests/model/goldens/ against what HF transformers computed from it (tools/make_goldens.py).
#include <gtest/gtest.h>

#include <numeric>

#include "tests/model/model_testing.h"

namespace runahead {
namespace {

constexpr double kTolerance = 1e-4;  // tolerance as a share of the largest |logit|
constexpr int64_t kCapacity = 512;

std::vector<std::string> GoldenNames() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenFolder())) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

class GoldenTest : public testing::TestWithParam<std::tuple<std::string, Backend>> {
 protected:
  GoldenTest()
      : dir_(GoldenFolder() / std::get<0>(GetParam())),
        golden_(LoadJson(dir_ / "golden.json")),
        runner_(dir_, std::get<1>(GetParam()), kCapacity) {}

  std::filesystem::path dir_;
  Json golden_;
  Runner runner_;
};

TEST_P(GoldenTest, LogitsAndGreedyTokensEqualTransformers) {
  double largest_error = 0;
  for (const Json& prompt : golden_["prompts"]) {
    const auto ids = prompt["ids"].get<std::vector<int32_t>>();
    SCOPED_TRACE(testing::Message() << "prompt of " << ids.size() << " tokens");
    const std::vector<float> first = runner_.Logits(std::span(ids).first(1));
    std::vector<float> logits = runner_.Logits(ids);
    const double first_error = RelativeError(first, prompt["first_logits"].get<std::vector<double>>());
    const double last_error = RelativeError(logits, prompt["last_logits"].get<std::vector<double>>());
    EXPECT_LE(first_error, kTolerance);
    EXPECT_LE(last_error, kTolerance);
    largest_error = std::max({largest_error, first_error, last_error});

    std::vector<int32_t> greedy;
    std::vector<int32_t> sequence = ids;
    const RopeSpec& rope = runner_.decoder().spec().rope;
    for (size_t i = 0; i < prompt["greedy"].size(); ++i) {
      const auto position = std::ssize(sequence);
      greedy.push_back(ArgMax(logits));
      sequence.push_back(greedy.back());
      const bool starts_anew = rope.IsLong(position + 1) && !rope.IsLong(position);
      logits = starts_anew ? runner_.Logits(sequence) : runner_.Logits(std::span(&greedy.back(), 1), position);
    }
    EXPECT_EQ(greedy, prompt["greedy"].get<std::vector<int32_t>>());
  }
  RecordProperty("largest_error", fmt::format("{:.2e}", largest_error));
}

TEST_P(GoldenTest, ChunksLeaveTheLogitsOfTheWhole) {
  for (const Json& prompt : golden_["prompts"]) {
    const auto ids = prompt["ids"].get<std::vector<int32_t>>();
    if (ids.size() < 3) continue;
    SCOPED_TRACE(testing::Message() << "prompt of " << ids.size() << " tokens");
    const auto n = static_cast<int64_t>(ids.size());
    const std::vector<int64_t> cuts{0, n / 2 + 1, n - 1, n};  // the last chunk is one token
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      const auto chunk =
          std::span(ids).subspan(static_cast<size_t>(cuts[i]), static_cast<size_t>(cuts[i + 1] - cuts[i]));
      if (cuts[i + 1] == n) {
        EXPECT_LE(RelativeError(runner_.Logits(chunk, cuts[i]), prompt["last_logits"].get<std::vector<double>>()),
                  kTolerance);
      } else {
        NoExchange exchange;
        ASSERT_TRUE(runner_.Forward(chunk, cuts[i], LastLayer::kKeysAndValues, exchange).ok());
      }
    }
  }
}

TEST_P(GoldenTest, RopeFrequenciesEqualTransformers) {
  const auto expected = golden_["inverse_frequencies"].get<std::vector<double>>();
  const std::vector<float>& got = runner_.decoder().spec().rope.inverse_frequencies;
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_FLOAT_EQ(got[i], static_cast<float>(expected[i])) << "at " << i;
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest,
                         testing::Combine(testing::ValuesIn(GoldenNames()),
                                          testing::Values(Backend::kScalar, Backend::kCpu)),
                         [](const auto& instance) {
                           std::string name =
                               std::get<0>(instance.param) + "_" + BackendName(std::get<1>(instance.param));
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace runahead
