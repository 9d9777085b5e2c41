// A row's bits depend on its own tokens alone: families and dtypes over ranks, threads, prompts in two parts and
// decoding. `same_bits` does the same for as long as one likes.
#include "tests/engine/same_bits.h"

namespace runahead {
namespace {

class SameBits : public testing::TestWithParam<std::tuple<const char*, DType, WeightFormat>> {};

TEST_P(SameBits, WhoeverComputesThem) {
  Engines engines;
  const auto& [preset, dtype, weights] = GetParam();
  unsigned seed = 0;
  for (const auto& [length, cut] :
       {std::pair<int64_t, int64_t>{1, 1}, {2, 1}, {9, 8}, {61, 17}, {130, 128}, {257, 200}}) {
    for (const auto& [ranks, threads] : {std::pair{1, 4}, {3, 2}, {8, 1}}) {
      ++seed;
      const Situation situation{preset, dtype, length, ranks, threads, seed, seed, cut, weights};
      ASSERT_EQ(Difference(engines, situation), "");
    }
  }
}

std::string NameOf(const testing::TestParamInfo<SameBits::ParamType>& instance) {
  const auto& [preset, dtype, weights] = instance.param;
  std::string name = std::string(preset) + "_" + std::string(Name(dtype)) + "_" + std::string(Name(weights));
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(FamiliesAndDTypes, SameBits,
                         testing::Combine(testing::Values("tiny-llama", "tiny-mistral", "tiny-qwen2", "tiny-qwen3",
                                                          "tiny-phi3", "tiny-gemma2", "tiny-falcon",
                                                          "tiny-falcon-40b", "tiny-falcon-rw", "tiny-gpt-neox",
                                                          "tiny-mixtral", "tiny-qwen2-moe", "tiny-deepseek-v3",
                                                          "tiny-gpt-oss"),
                                          testing::Values(DType::kF32, DType::kBF16, DType::kF16),
                                          testing::Values(WeightFormat::kStored)),
                         NameOf);

INSTANTIATE_TEST_SUITE_P(Formats, SameBits,
                         testing::Combine(testing::Values("tiny-llama", "tiny-gemma2", "tiny-falcon-40b",
                                                          "tiny-qwen2-moe", "tiny-deepseek-v3", "tiny-gpt-oss"),
                                          testing::Values(DType::kF32, DType::kBF16),
                                          testing::Values(WeightFormat::kInt8, WeightFormat::kInt4)),
                         NameOf);

}  // namespace
}  // namespace runahead
