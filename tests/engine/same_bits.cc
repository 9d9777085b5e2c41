// Draws situations and compares what they leave behind bit for bit with one rank's: models of all families, dtypes,
// formats of weights, strategies, topologies, partitions, 1 to 8 ranks of 1 to 4 threads, 1 to 4,000 tokens, prompts
// in two passes, decoded.
//   same_bits --seed 1 --runs 100
#include "tests/engine/same_bits.h"

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>

namespace runahead {
namespace {

constexpr const char* kPresets[] = {
    "tiny-llama",    "tiny-llama-mha", "tiny-llama-mqa", "tiny-llama-tied",  "tiny-mistral",    "tiny-qwen2",
    "tiny-qwen3",    "tiny-phi3",      "tiny-gemma2",    "tiny-falcon",      "tiny-falcon-40b", "tiny-falcon-rw",
    "tiny-gpt-neox", "tiny-mixtral",   "tiny-qwen2-moe", "tiny-deepseek-v3", "tiny-gpt-oss"};

/// Half of the lengths are below 100, some reach 4,000.
int64_t DrawLength(std::mt19937& random) {
  const int64_t most =
      std::array<int64_t, 4>{16, 100, 700, 4000}[std::discrete_distribution<size_t>({3, 4, 5, 1})(random)];
  return std::uniform_int_distribution<int64_t>(1, most)(random);
}

Situation Draw(std::mt19937& random) {
  const auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  Situation s;
  s.preset = kPresets[below(std::size(kPresets))];
  s.dtype = std::array{DType::kF32, DType::kBF16, DType::kF16}[below(3)];
  s.weights = std::array{WeightFormat::kStored, WeightFormat::kInt8, WeightFormat::kInt4}[below(3)];
  s.length = DrawLength(random);
  s.ranks = 1 + static_cast<int>(below(kMostRanks));
  s.threads = 1 + static_cast<int>(below(4));
  s.seed = static_cast<unsigned>(random());
  s.option = below(1000);
  s.cut = s.length < 2 ? 1 : 1 + static_cast<int64_t>(below(static_cast<size_t>(s.length) - 1));
  return s;
}

int Run(unsigned seed, int runs) {
  Engines engines;
  std::mt19937 random(seed);
  int different = 0;
  Situation model;
  for (int run = 0; run < runs; ++run) {
    constexpr int kRunsOfAModel = 8;  // loading takes longer than running
    Situation situation = Draw(random);
    if (run % kRunsOfAModel == 0) model = situation;
    situation.preset = model.preset;
    situation.dtype = model.dtype;
    situation.weights = model.weights;
    situation.threads = 1 + (model.threads + run) % 4;
    const std::string difference = Difference(engines, situation);
    if (difference.empty()) continue;
    ++different;
    fmt::print("run {} differs: {}\n", run, difference);
  }
  fmt::print("seed {}: {} of {} runs differ\n", seed, different, runs);
  return different > 0 ? 1 : 0;
}

}  // namespace
}  // namespace runahead

int main(int argc, char** argv) {
  unsigned seed = 1;
  int runs = 100;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 < argc && std::strcmp(argv[i], "--seed") == 0) {
      seed = static_cast<unsigned>(std::strtoul(argv[i + 1], nullptr, 10));
    } else if (i + 1 < argc && std::strcmp(argv[i], "--runs") == 0) {
      runs = std::atoi(argv[i + 1]);
    } else {
      fmt::print(stderr, "usage: same_bits [--seed N] [--runs N]\n");
      return 2;
    }
  }
  return runahead::Run(seed, runs);
}
