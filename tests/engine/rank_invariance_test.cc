// p ranks compute what one rank computes, bit for bit: logits, the final KV-cache and what is decoded from it, for
// every strategy, topology, partition, dtype and length.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "engine/engine_state.h"
#include "engine/session_state.h"
#include "link/fault/fault_fabric.h"
#include "link/local/local_fabric.h"
#include "tests/engine/outcome.h"
#include "tests/engine/tiny_model.h"

namespace runahead {
namespace {

constexpr int kMaxRanks = 8;
constexpr std::array<int64_t, 7> kLengths{1, 2, 3, 17, 64, 333, 1000};

class RankInvariance : public testing::TestWithParam<DType> {
 protected:
  // One model for the whole suite; each dtype loads it once.
  static std::shared_ptr<EngineState> EngineOf(DType dtype) {
    static std::map<DType, std::shared_ptr<EngineState>> engines;
    auto& engine = engines[dtype];
    if (!engine) {
      EngineOptions options;
      options.devices = "cpu:8";
      options.threads_per_rank = 1;
      options.dtype = std::string(Name(dtype));
      options.timeout_s = 60;
      engine = LoadEngineState(TinyModelFolder(), options);
    }
    return engine;
  }
};

TEST_P(RankInvariance, EveryStrategyComputesWhatOneRankComputes) {
  const auto engine = EngineOf(GetParam());
  const DecoderSpec& spec = engine->decoder().spec();
  for (const int64_t length : kLengths) {
    const std::vector<int32_t> prompt = RandomPrompt(length, spec.vocab, static_cast<unsigned>(length));
    const PhaseOutcome single = RunOnce(engine, prompt, {Strategy::kSingle, Topology::kChain, {}, 0, false});
    for (int ranks = 1; ranks <= kMaxRanks; ++ranks) {
      for (const auto& [name, options] : AllOptions(ranks, static_cast<unsigned>(length * 10 + ranks))) {
        SCOPED_TRACE(testing::Message() << name << ", " << ranks << " ranks, " << length << " tokens");
        ASSERT_EQ(FirstDifference(RunOnce(engine, prompt, options), single, spec, length), "");
      }
    }
  }
}

// Links that deliver late and out of step change nothing but the time.
TEST_P(RankInvariance, HoldsOnJitteredLinks) {
  const auto engine = EngineOf(GetParam());
  const std::vector<int32_t> prompt = RandomPrompt(97, engine->decoder().spec().vocab, 5);
  const PhaseOutcome single = RunOnce(engine, prompt, {Strategy::kSingle, Topology::kChain, {}, 0, false});
  for (unsigned seed = 0; seed < 10; ++seed) {
    Faults faults;
    faults.seed = seed;
    faults.max_delay = std::chrono::milliseconds(3);
    engine->Hold().SetFabric(MakeFaultFabric(MakeLocalFabric(engine->ranks()), faults));
    for (const auto& [name, options] : AllOptions(2 + static_cast<int>(seed % 4), seed)) {
      SCOPED_TRACE(testing::Message() << name << ", seed " << seed);
      ASSERT_EQ(FirstDifference(RunOnce(engine, prompt, options), single, engine->decoder().spec(), 97), "");
    }
  }
  engine->Hold().RenewFabric();
}

class FamilyInvariance : public testing::TestWithParam<const char*> {};

TEST_P(FamilyInvariance, EveryStrategyComputesWhatOneRankComputes) {
  EngineOptions engine_options;
  engine_options.devices = "cpu:4";
  engine_options.threads_per_rank = 1;
  engine_options.dtype = "f32";
  const auto engine = LoadEngineState(TinyModelFolder(GetParam()), engine_options);
  const DecoderSpec& spec = engine->decoder().spec();
  for (const int64_t length : {5, 100, 333}) {
    const std::vector<int32_t> prompt = RandomPrompt(length, spec.vocab, static_cast<unsigned>(length));
    const PhaseOutcome single = RunOnce(engine, prompt, {Strategy::kSingle, Topology::kChain, {}, 0, false});
    for (const int ranks : {2, 3, 4}) {
      for (const auto& [name, options] : AllOptions(ranks, static_cast<unsigned>(length + ranks))) {
        SCOPED_TRACE(testing::Message() << name << ", " << ranks << " ranks, " << length << " tokens");
        ASSERT_EQ(FirstDifference(RunOnce(engine, prompt, options), single, spec, length), "");
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyInvariance,
                         testing::Values("tiny-mistral", "tiny-qwen2", "tiny-qwen3", "tiny-phi3", "tiny-gemma2",
                                         "tiny-falcon", "tiny-falcon-40b", "tiny-falcon-rw", "tiny-gpt-neox",
                                         "tiny-mixtral", "tiny-qwen2-moe", "tiny-deepseek-v3", "tiny-gpt-oss"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

INSTANTIATE_TEST_SUITE_P(DTypes, RankInvariance, testing::Values(DType::kF32, DType::kBF16, DType::kF16),
                         [](const auto& dtype) { return std::string(Name(dtype.param)); });

}  // namespace
}  // namespace runahead
