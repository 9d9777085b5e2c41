// Ranks on GPUs compute what one CPU rank computes. With one GPU the ranks share it; without one these are skipped.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tensor/cuda_device.h"
#include "tests/engine/outcome.h"
#include "tests/engine/tiny_model.h"

namespace runahead {
namespace {

constexpr int kRanks = 4;

/// GPUs for kRanks ranks, each as often as it must: "cuda:0,1,0,1".
std::string GpusForAll() {
  std::string text = "cuda:";
  for (int rank = 0; rank < kRanks; ++rank) {
    text += fmt::format("{}{}", rank == 0 ? "" : ",", rank % CudaDeviceCount());
  }
  return text;
}

std::shared_ptr<EngineState> Load(const std::string& preset, const std::string& devices, const std::string& dtype) {
  EngineOptions options;
  options.devices = devices;
  options.dtype = dtype;
  options.timeout_s = 60;
  return LoadEngineState(TinyModelFolder(preset), options);
}

const PrefillOptions kSingle{Strategy::kSingle, Topology::kChain, {}, 0, false};

class GpuRanks : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() == 0) GTEST_SKIP() << "there is no GPU";
  }
};

TEST_P(GpuRanks, EveryStrategyComputesWhatOneCpuRankComputes) {
  const auto cpu = Load(GetParam(), "cpu", "f32");
  const auto gpus = Load(GetParam(), GpusForAll(), "f32");
  const DecoderSpec& spec = cpu->decoder().spec();
  // Sums of a few hundred terms in another order, a few layers deep.
  const double tolerance = UnitRoundoff(DType::kF32) * 256;
  for (const int64_t length : {5, 100, 333}) {
    const std::vector<int32_t> prompt = RandomPrompt(length, spec.vocab, static_cast<unsigned>(length));
    const Outcome expected = RunOnce(cpu, prompt, kSingle);
    for (int ranks = 1; ranks <= kRanks; ++ranks) {
      for (const auto& [name, options] : AllOptions(ranks, static_cast<unsigned>(length + ranks))) {
        SCOPED_TRACE(testing::Message() << name << ", " << ranks << " ranks, " << length << " tokens");
        const Outcome actual = RunOnce(gpus, prompt, options);
        ExpectClose(actual.logits, expected.logits, tolerance, "logits");
        for (size_t i = 0; i < expected.cache.size(); ++i) {
          const int64_t window = spec.window(static_cast<int>(i / 2));
          ExpectClose(VisibleRows(actual.cache[i], length, window), VisibleRows(expected.cache[i], length, window),
                      tolerance, i % 2 == 0 ? "keys" : "values");
        }
        ExpectSameTokens(actual, expected, tolerance);
        if (HasFailure()) return;
      }
    }
  }
}

// Copies that overtake the work they wait for, or are overtaken, show in some of many runs.
TEST_P(GpuRanks, RandomPartitionsRaceWithNothing) {
  constexpr int kRuns = 100;
  const auto gpus = Load(GetParam(), GpusForAll(), "bf16");
  const double tolerance = UnitRoundoff(DType::kBF16) * 16;
  const std::vector<int32_t> prompt = RandomPrompt(700, gpus->decoder().spec().vocab, 3);
  const Outcome expected = RunOnce(gpus, prompt, kSingle);
  for (unsigned seed = 0; seed < kRuns; ++seed) {
    for (const auto& [name, options] : AllOptions(2 + static_cast<int>(seed % 3), seed)) {
      if (options.partition.kind != PartitionKind::kManual) continue;
      SCOPED_TRACE(testing::Message() << name << ", seed " << seed);
      ExpectClose(RunOnce(gpus, prompt, options).logits, expected.logits, tolerance, "logits");
    }
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GpuRanks,
                         testing::Values("tiny-llama", "tiny-mistral", "tiny-gemma2", "tiny-falcon", "tiny-falcon-rw",
                                         "tiny-gpt-neox"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace runahead
