// A real trained Llama (stories260k of the shared assets): its published text, and float64 logits of a reference.
#include <gtest/gtest.h>

#include "tests/model/model_testing.h"

namespace runahead {
namespace {

std::filesystem::path StoriesFolder() {
  const char* assets = std::getenv("RUNAHEAD_ASSETS");
  const std::filesystem::path folder =
      assets != nullptr ? assets : std::filesystem::path(SourceDir()) / ".." / "shared" / "assets";
  return folder / "stories260k";
}

class StoriesTest : public testing::TestWithParam<Backend> {};

TEST_P(StoriesTest, GreedyTextIsThePublishedOne) {
  if (!std::filesystem::exists(StoriesFolder() / "golden.json")) GTEST_SKIP() << StoriesFolder() << " is absent";
  const Json golden = LoadJson(StoriesFolder() / "golden.json");
  const auto expected = golden["greedy_ids"].get<std::vector<int32_t>>();  // the prompt and what follows
  auto ids = golden["prompt_ids"].get<std::vector<int32_t>>();
  Runner runner(StoriesFolder(), GetParam(), 512);

  std::vector<float> logits = runner.Logits(ids);
  // The reference is in float64: f32 arithmetic over the model's widest sums is what may differ.
  EXPECT_LE(RelativeError(logits, golden["logits_after_bos"].get<std::vector<double>>()), 1e-5);
  while (ids.size() < expected.size()) {
    ids.push_back(ArgMax(logits));
    logits = runner.Logits(std::span(&ids.back(), 1), static_cast<int64_t>(ids.size()) - 1);
  }
  EXPECT_EQ(ids, expected);
}

INSTANTIATE_TEST_SUITE_P(Backends, StoriesTest, testing::Values(Backend::kScalar, Backend::kCpu),
                         [](const auto& instance) { return BackendName(instance.param); });

}  // namespace
}  // namespace runahead
