// Several sequences in one forward pass, on pages in any order: each gets the bits that it gets alone.
#include <gtest/gtest.h>

#include "model/make_model.h"
#include "tests/model/model_testing.h"

namespace runahead {
namespace {

std::vector<int32_t> Tokens(int64_t n, int64_t vocab, int64_t seed) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>((i * i * 31 + i * seed + 5) % vocab));
  return tokens;
}

class BatchTest : public testing::TestWithParam<const char*> {
 protected:
  static constexpr int64_t kRoom = 400;

  BatchTest() { MakeModel(GetParam(), model_.path() / "model", 1); }

  [[nodiscard]] std::filesystem::path dir() const { return model_.path() / "model"; }

  ScratchFolder model_;
};

TEST_P(BatchTest, EachSequenceGetsTheBitsThatItGetsAlone) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Runner alone(dir(), Backend::kCpu, kRoom, dtype);
    const int64_t vocab = alone.decoder().spec().vocab;
    // A long prompt whose first part is there, a short prompt, and two answers that go on.
    const std::vector<int32_t> tokens[] = {Tokens(350, vocab, 3), Tokens(5, vocab, 4), Tokens(200, vocab, 5),
                                           Tokens(129, vocab, 6)};
    const int64_t begins[] = {130, 0, 199, 128};
    const std::vector<int32_t> pages[] = {{9, 2, 3}, {5}, {4, 0}, {7, 6}};
    std::vector<std::vector<float>> expected;
    for (const std::vector<int32_t>& sequence : tokens) expected.push_back(alone.Logits(sequence));

    const auto device = MakeCpuDevice();
    const auto ops = MakeCpuOps(*device, 2);
    const auto stream = device->NewStream();
    const DecoderSpec& spec = alone.decoder().spec();
    const KvCache cache(*device, spec.kv_shape(dtype), 10 * kPageRows);
    const PositionTables tables = alone.decoder().MakePositions(*ops, kRoom, false);
    Workspace workspace(*device, spec, dtype, kRoom, kMlpBlockRows, /*logit_rows=*/4);
    std::vector<Chunk> batch;
    for (size_t i = 0; i < std::size(tokens); ++i) {
      const auto begin = static_cast<size_t>(begins[i]);
      const KvView view(cache, PageTable(pages[i]));
      const std::span<const int32_t> all(tokens[i]);
      if (begin > 0) {
        const Chunk chunk{
            .tokens = all.first(begin), .last_layer = LastLayer::kKeysAndValues, .tables = &tables, .cache = view};
        ASSERT_TRUE(alone.decoder().Forward(chunk, workspace, *ops, *stream).ok());
      }
      batch.push_back({.tokens = all.subspan(begin), .begin = begins[i], .tables = &tables, .cache = view});
    }
    ASSERT_TRUE(alone.decoder().Forward(batch, workspace, *ops, *stream).ok());
    const auto* logits = workspace.Logits(4).As<float>();
    for (const std::vector<float>& own : expected) {
      EXPECT_EQ(own, std::vector<float>(logits, logits + vocab)) << Name(dtype);
      logits += vocab;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, BatchTest,
                         testing::Values("tiny-llama", "tiny-mistral", "tiny-falcon-rw", "tiny-qwen3",
                                         "tiny-qwen2-moe", "tiny-deepseek-v3", "tiny-gpt-oss"),
                         [](const auto& preset) {
                           std::string name = preset.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace runahead
