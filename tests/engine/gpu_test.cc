// Whole models on a GPU compute what they compute in f32 on the CPU: logits, cache and greedy tokens, for every
// family.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "base/source_dir.h"
#include "engine/engine_state.h"
#include "engine/session_state.h"
#include "runahead/error.h"
#include "tensor/cuda_device.h"
#include "worker/sampler.h"

namespace runahead {
namespace {

constexpr int kGreedyTokens = 4;

std::filesystem::path GoldenFolder() { return std::filesystem::path(SourceDir()) / "tests" / "model" / "goldens"; }

std::vector<std::string> Goldens() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenFolder())) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::shared_ptr<EngineState> Load(const std::string& model, const std::string& devices, DType dtype,
                                  const std::string& weights = "", bool deterministic = false) {
  EngineOptions options;
  options.devices = devices;
  options.dtype = std::string(Name(dtype));
  options.weights = weights;
  options.deterministic = deterministic;
  return LoadEngineState(GoldenFolder() / model, options);
}

/// What a prompt and a continuation with given tokens leave behind.
struct PhaseOutcome {
  std::vector<std::vector<float>> logits;  // logits of the prompt's last position, then of each token
  std::vector<std::vector<float>> cache;   // K and V of each layer
};

/// `tokens`: the continuation; drawn greedily while it is empty.
PhaseOutcome RunOnce(const std::shared_ptr<EngineState>& engine, std::span<const int32_t> prompt,
                     std::vector<int32_t>& tokens) {
  SessionState session(engine, static_cast<int64_t>(prompt.size()) + kGreedyTokens);
  session.Prefill(prompt, {Strategy::kSingle, Topology::kChain, {}, 0, false});
  PhaseOutcome outcome;
  const bool draw = tokens.empty();
  for (int i = 0; i <= kGreedyTokens; ++i) {
    const std::span<const float> logits = session.logits();
    outcome.logits.emplace_back(logits.begin(), logits.end());
    if (i == kGreedyTokens) break;
    if (draw) {
      tokens.push_back(static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    }
    session.Append(tokens[static_cast<size_t>(i)]);
  }
  for (int layer = 0; layer < engine->decoder().spec().layers; ++layer) {
    outcome.cache.push_back(session.CacheRows(layer, false));
    outcome.cache.push_back(session.CacheRows(layer, true));
  }
  return outcome;
}

/// The root of the mean square of a - b over that of b; infinite where a is not a number.
double Distance(std::span<const float> a, std::span<const float> b) {
  double difference = 0;
  double magnitude = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    magnitude += static_cast<double>(b[i]) * b[i];
  }
  return std::isnan(difference) ? INFINITY : std::sqrt(difference / std::max(magnitude, 1e-30));
}

class GpuModel : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() == 0) GTEST_SKIP() << "no NVIDIA GPU to test on";
  }

  /// About ten roundings in each layer add up as a random walk, weights and activations alike, and grow by what
  /// softmax and activations make of them; ten times that is allowed, and twice as much where 16 bits can send rows
  /// whose scores are nearly equal through other experts.
  static double Tolerance(DType dtype, const DecoderSpec& spec) {
    const double margin = spec.mixture.experts > 0 && dtype != DType::kF32 ? 20 : 10;
    const double roundings = std::sqrt(10.0 * spec.layers);
    const double sums = UnitRoundoff(DType::kF32) * std::sqrt(static_cast<double>(spec.hidden));
    return margin * roundings * (UnitRoundoff(dtype) + sums);
  }
};

std::vector<int32_t> PromptOf(int64_t tokens, const DecoderSpec& spec, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> prompt(static_cast<size_t>(tokens));
  for (int32_t& id : prompt) id = static_cast<int32_t>(random() % static_cast<uint64_t>(spec.vocab));
  return prompt;
}

TEST_P(GpuModel, ComputesWhatTheCpuComputesInF32) {
  const auto cpu = Load(GetParam(), "cpu", DType::kF32);
  const DecoderSpec& spec = cpu->decoder().spec();
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const auto gpu = Load(GetParam(), "cuda:0", dtype);
    const double tolerance = Tolerance(dtype, spec);
    for (const int64_t length : {1, 2, 17, 61, 200}) {
      if (length + kGreedyTokens > spec.max_positions) continue;
      SCOPED_TRACE(testing::Message() << Name(dtype) << ", " << length << " tokens");
      const std::vector<int32_t> prompt = PromptOf(length, spec, static_cast<unsigned>(length));
      std::vector<int32_t> tokens;
      const PhaseOutcome expected = RunOnce(cpu, prompt, tokens);
      const PhaseOutcome actual = RunOnce(gpu, prompt, tokens);
      for (size_t i = 0; i < expected.logits.size(); ++i) {
        EXPECT_LE(Distance(actual.logits[i], expected.logits[i]), tolerance) << "logits after " << i << " tokens";
      }
      for (size_t i = 0; i < expected.cache.size(); ++i) {
        EXPECT_LE(Distance(actual.cache[i], expected.cache[i]), tolerance)
            << (i % 2 == 0 ? "keys" : "values") << " of layer " << i / 2;
      }
    }
  }
}

// Each product of two operands in e4m3, whose relative errors are uniform up to 1/16, is off by 4 % or so; four of
// them in a row of each layer add up as a random walk. Three times that is allowed at the root mean square of all
// logits, since single ones of so small models go further astray.
TEST_P(GpuModel, WeightsInFp8AreOffByTheirRounding) {
  const auto stored = Load(GetParam(), "cuda:0", DType::kBF16);
  const DecoderSpec& spec = stored->decoder().spec();
  if (spec.mixture.experts > 0) {
    EXPECT_THROW((void)Load(GetParam(), "cuda:0", DType::kBF16, "fp8"), ConfigError);
    return;
  }
  constexpr double kProduct = 0.04;
  const double tolerance = 3 * kProduct * std::sqrt(4.0 * spec.layers);
  for (const bool deterministic : {false, true}) {
    double squares = 0;
    double count = 0;
    const auto fp8 = Load(GetParam(), "cuda:0", DType::kBF16, "fp8", deterministic);
    EXPECT_EQ(fp8->decoder().weight_format(), WeightFormat::kFp8);
    for (const int64_t length : {1, 5, 61, 200}) {
      if (length + kGreedyTokens > spec.max_positions) continue;
      SCOPED_TRACE(testing::Message() << length << " tokens, deterministic " << deterministic);
      const std::vector<int32_t> prompt = PromptOf(length, spec, static_cast<unsigned>(length));
      std::vector<int32_t> tokens;
      const PhaseOutcome expected = RunOnce(stored, prompt, tokens);
      const PhaseOutcome actual = RunOnce(fp8, prompt, tokens);
      for (size_t i = 0; i < expected.logits.size(); ++i) {
        squares += std::pow(Distance(actual.logits[i], expected.logits[i]), 2);
        ++count;
      }
    }
    EXPECT_LE(std::sqrt(squares / count), tolerance) << "deterministic " << deterministic;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GpuModel, testing::ValuesIn(Goldens()), [](const auto& model) {
  std::string name = model.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
});

/// Logits from the pass itself, which AppendGreedy leaves on the GPU.
std::vector<int32_t> GreedyBySteps(const std::shared_ptr<EngineState>& engine, std::span<const int32_t> prompt,
                                   int tokens) {
  SessionState session(engine, static_cast<int64_t>(prompt.size()) + tokens);
  session.Prefill(prompt, {});
  std::vector<int32_t> ids;
  for (int i = 0; i < tokens; ++i) {
    ids.push_back(LikeliestToken(session.logits()));
    session.Append(ids.back());
  }
  return ids;
}

// Work that is enqueued before its token is known: taken up, left behind, beside another session, and at the end of
// the capacity.
TEST_P(GpuModel, DecodingAheadGivesTheTokensOfDecodingByStep) {
  constexpr int kTokens = 24;
  const auto gpu = Load(GetParam(), "cuda:0", DType::kF32);
  const DecoderSpec& spec = gpu->decoder().spec();
  const std::vector<int32_t> prompt = PromptOf(20, spec, 7);
  if (std::ssize(prompt) + kTokens > spec.max_positions) GTEST_SKIP() << "the model's context is too short";
  const std::vector<int32_t> expected = GreedyBySteps(gpu, prompt, kTokens);

  SessionState session(gpu, std::ssize(prompt) + kTokens);
  SessionState other(gpu, 64);
  for (int run = 0; run < 3; ++run) {
    session.Prefill(prompt, {});  // drops what the run before left ahead
    int32_t token = LikeliestToken(session.logits());
    for (int i = 0; i < kTokens; ++i) {
      ASSERT_EQ(token, expected[static_cast<size_t>(i)]) << "run " << run << ", token " << i;
      if (run == 1 && i % 5 == 2) {  // somebody else uses the rank and its workspace
        other.Prefill(std::span(prompt).first(9), {});
        (void)other.AppendGreedy(prompt[0], true);
      }
      if (run == 2 && i == 10) {  // another token than the one that was worked on ahead
        const auto vocab = static_cast<int32_t>(spec.vocab);
        (void)session.AppendGreedy((token + 1) % vocab, true);
        break;
      }
      token = session.AppendGreedy(token, run != 0 || i % 3 != 0);
    }
  }
  // What the last run wrote over must read as if it had been written once.
  std::vector<int32_t> changed(expected.begin(), expected.begin() + 10);
  changed.insert(changed.begin(), prompt.begin(), prompt.end());
  changed.push_back((expected[10] + 1) % static_cast<int32_t>(spec.vocab));
  SessionState whole(gpu, std::ssize(prompt) + kTokens);
  whole.Prefill(changed, {});
  for (int layer = 0; layer < spec.layers; ++layer) {
    EXPECT_LE(Distance(session.CacheRows(layer, false), whole.CacheRows(layer, false)), Tolerance(DType::kF32, spec))
        << "keys of layer " << layer;
  }
}

TEST(GpuEngine, RefusesWhatDoesNotFitWithTheNumbers) {
  if (CudaDeviceCount() == 0) GTEST_SKIP() << "no NVIDIA GPU to test on";
  const std::string absent = fmt::format("cuda:{}", CudaDeviceCount());
  try {
    Load(Goldens().front(), absent, DType::kBF16);
    FAIL() << "a GPU beyond the last was used";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find(absent), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace runahead
