// Ranks on GPUs compute what one CPU rank computes. With one GPU the ranks share it; without one these are skipped.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "link/fault/fault_fabric.h"
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

std::shared_ptr<EngineState> Load(const std::string& preset, const std::string& devices, const std::string& dtype,
                                  EngineOptions options = {}) {
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
    const PhaseOutcome expected = RunOnce(cpu, prompt, kSingle);
    for (int ranks = 1; ranks <= kRanks; ++ranks) {
      for (const auto& [name, options] : AllOptions(ranks, static_cast<unsigned>(length + ranks))) {
        SCOPED_TRACE(testing::Message() << name << ", " << ranks << " ranks, " << length << " tokens");
        const PhaseOutcome actual = RunOnce(gpus, prompt, options);
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

/// How often each race is run: $RUNAHEAD_RACES, or a few times.
unsigned Races() {
  constexpr unsigned kFew = 25;
  const char* const asked = std::getenv("RUNAHEAD_RACES");
  return asked == nullptr ? kFew : static_cast<unsigned>(std::strtoul(asked, nullptr, 10));
}

/// Prompts with random cuts, again and again, compute what one rank computes.
void Race(const std::shared_ptr<EngineState>& gpus, bool jitter) {
  const double tolerance = UnitRoundoff(DType::kBF16) * 16;
  const std::vector<int32_t> prompt = RandomPrompt(700, gpus->decoder().spec().vocab, 3);
  const PhaseOutcome expected = RunOnce(gpus, prompt, kSingle);
  for (unsigned seed = 0; seed < Races(); ++seed) {
    if (jitter) {
      Faults faults;
      faults.seed = seed;
      faults.max_delay = std::chrono::microseconds(300);
      HeldEngine held = gpus->Hold();
      held.SetFabric(MakeFaultFabric(held.NewFabric(), faults));
    }
    for (const auto& [name, options] : AllOptions(2 + static_cast<int>(seed % 3), seed)) {
      if (options.strategy == Strategy::kRunahead && options.partition.kind != PartitionKind::kManual) continue;
      SCOPED_TRACE(testing::Message() << name << ", seed " << seed);
      ExpectClose(RunOnce(gpus, prompt, options).logits, expected.logits, tolerance, "logits");
    }
    if (testing::Test::HasFailure()) return;
  }
}

// Copies that overtake the work they wait for, or are overtaken, show in some of many runs.
TEST_P(GpuRanks, RandomPartitionsRaceWithNothing) {
  const auto gpus = Load(GetParam(), GpusForAll(), "bf16");
  Race(gpus, /*jitter=*/false);
}

TEST_P(GpuRanks, JitteredLinksChangeNothing) {
  const auto gpus = Load(GetParam(), GpusForAll(), "bf16");
  Race(gpus, /*jitter=*/true);
}

TEST_P(GpuRanks, LinksThroughHostMemoryChangeNothing) {
  EngineOptions options;
  options.link = "host";
  const auto gpus = Load(GetParam(), GpusForAll(), "bf16", options);
  Race(gpus, /*jitter=*/false);
}

TEST_P(GpuRanks, SlowLinksChangeNothingButTheTime) {
  EngineOptions options;
  options.link_bandwidth = "20MB/s,0-1=10MB/s";
  const auto gpus = Load(GetParam(), GpusForAll(), "bf16", options);
  const std::vector<int32_t> prompt = RandomPrompt(300, gpus->decoder().spec().vocab, 4);
  const PhaseOutcome expected = RunOnce(gpus, prompt, kSingle);
  for (const auto& [name, asked] : AllOptions(3, 1)) {
    SCOPED_TRACE(testing::Message() << name);
    ExpectClose(RunOnce(gpus, prompt, asked).logits, expected.logits, UnitRoundoff(DType::kBF16) * 16, "logits");
    PrefillOptions recorded = asked;
    recorded.record_timeline = true;
    SessionState session(gpus, 310);
    const PrefillReport report = session.Prefill(prompt, recorded);
    size_t first_link = 0;  // bytes
    for (const TimelineEvent& event : report.timeline) {
      constexpr double kClocksDiffer = 1;  // ms
      EXPECT_LE(-kClocksDiffer, event.begin_ms);
      EXPECT_LE(event.begin_ms, event.end_ms);
      EXPECT_LE(event.end_ms, report.ttft_ms + kClocksDiffer);
      if (event.activity == Activity::kSend && event.rank == 0 && event.peer == 1) first_link += event.bytes;
    }
    EXPECT_GT(first_link, 0U);
    EXPECT_GE(report.ttft_ms, static_cast<double>(first_link) / 10e6 * 1e3);
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
