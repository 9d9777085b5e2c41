// The forward pass around its arithmetic: the hook, the last layer, blocks and memory.
#include "model/decoder.h"

#include <gtest/gtest.h>

#include <cstring>

#include "model/make_model.h"
#include "tests/model/model_testing.h"

namespace runahead {
namespace {

/// Notes its calls; fails at one layer.
class NotingExchange final : public Exchange {
 public:
  explicit NotingExchange(int failing_layer = -1) : failing_layer_(failing_layer) {}

  Status LayerReady(int layer, Stream& /*stream*/) override {
    layers.push_back(layer);
    return layer == failing_layer_ ? Status::Failed("rank 3 is gone") : Status::Ok();
  }

  std::vector<int> layers;

 private:
  int failing_layer_;
};

std::vector<int32_t> Tokens(int64_t n, int64_t vocab) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>((i * i * 31 + i * 7 + 5) % vocab));
  return tokens;
}

class DecoderTest : public testing::Test {
 protected:
  DecoderTest() { MakeModel("tiny-llama", model_.path() / "model", 1); }

  [[nodiscard]] std::filesystem::path dir() const { return model_.path() / "model"; }

  ScratchFolder model_;
};

TEST_F(DecoderTest, CallsTheExchangeOncePerLayer) {
  Runner runner(dir(), Backend::kScalar, 8);
  const std::vector<int32_t> tokens = Tokens(5, 512);
  for (const LastLayer last_layer : {LastLayer::kKeysAndValues, LastLayer::kLastRow}) {
    NotingExchange exchange;
    EXPECT_TRUE(runner.Forward(tokens, 0, last_layer, exchange).ok());
    EXPECT_EQ(exchange.layers, (std::vector<int>{0, 1, 2}));
  }
}

TEST_F(DecoderTest, StopsWhereTheExchangeFails) {
  Runner runner(dir(), Backend::kScalar, 8);
  NotingExchange exchange(1);
  const Status status = runner.Forward(Tokens(5, 512), 0, LastLayer::kLastRow, exchange);
  EXPECT_EQ(status.message(), "rank 3 is gone");
  EXPECT_EQ(exchange.layers, (std::vector<int>{0, 1}));
}

TEST_F(DecoderTest, BothLastLayersWriteTheSameCache) {
  const std::vector<int32_t> tokens = Tokens(9, 512);
  Runner whole(dir(), Backend::kScalar, 9);
  Runner keys_and_values(dir(), Backend::kScalar, 9);
  NoExchange exchange;
  ASSERT_TRUE(whole.Forward(tokens, 0, LastLayer::kLastRow, exchange).ok());
  ASSERT_TRUE(keys_and_values.Forward(tokens, 0, LastLayer::kKeysAndValues, exchange).ok());
  for (int layer = 0; layer < 3; ++layer) {
    const KvSpan a = whole.cache().Span(layer, 0, 9);
    const KvSpan b = keys_and_values.cache().Span(layer, 0, 9);
    EXPECT_EQ(std::memcmp(a.k.data(), b.k.data(), a.k.bytes()), 0) << "layer " << layer;
    EXPECT_EQ(std::memcmp(a.v.data(), b.v.data(), a.v.bytes()), 0) << "layer " << layer;
  }
}

TEST_F(DecoderTest, ALongChunkGoesThroughTheMlpInBlocks) {
  constexpr int64_t kRows = kMlpBlockRows + 77;
  const std::vector<int32_t> tokens = Tokens(kRows, 512);
  Runner whole(dir(), Backend::kCpu, kRows);
  const std::vector<float> logits = whole.Logits(tokens);
  Runner chunks(dir(), Backend::kCpu, kRows);
  NoExchange exchange;
  ASSERT_TRUE(chunks.Forward(std::span(tokens).first(700), 0, LastLayer::kKeysAndValues, exchange).ok());
  const std::vector<float> expected = chunks.Logits(std::span(tokens).subspan(700), 700);
  EXPECT_LE(RelativeError(logits, {expected.begin(), expected.end()}), 1e-5);
}

TEST_F(DecoderTest, LowPrecisionStaysNear) {
  constexpr int kPrompts = 16;
  for (const Backend backend : {Backend::kScalar, Backend::kCpu}) {
    double squares = 0;
    for (int prompt = 0; prompt < kPrompts; ++prompt) {
      std::vector<int32_t> tokens = Tokens(40 + prompt, 512);
      tokens.erase(tokens.begin(), tokens.begin() + prompt);
      const std::vector<float> exact = Runner(dir(), Backend::kScalar, 40).Logits(tokens);
      const std::vector<float> rounded = Runner(dir(), backend, 40, DType::kBF16).Logits(tokens);
      squares += std::pow(RelativeError(rounded, {exact.begin(), exact.end()}), 2);
    }
    // Every of the 3 layers rounds some ten times. Errors add up like a random walk, whose bound is of the mean
    // square.
    EXPECT_LE(std::sqrt(squares / kPrompts), std::sqrt(30.0) * UnitRoundoff(DType::kBF16));
  }
}

TEST(MlpBlockTest, BlocksAreEvenAndSmallEnough) {
  for (int64_t n = 1; n < 5 * kMlpBlockRows; ++n) {
    const int64_t block = MlpBlockRows(n);
    ASSERT_LE(block, kMlpBlockRows);
    const int64_t blocks = (n + block - 1) / block;
    ASSERT_EQ(blocks, (n + kMlpBlockRows - 1) / kMlpBlockRows) << n;
  }
  EXPECT_EQ(MlpBlockRows(1), 1);
  EXPECT_EQ(MlpBlockRows(kMlpBlockRows), kMlpBlockRows);
  EXPECT_EQ(MlpBlockRows(kMlpBlockRows + 2), kMlpBlockRows / 2 + 16);
}

TEST_F(DecoderTest, WorkspaceTensorsDoNotOverlapWhileTheyAreNeeded) {
  const DecoderSpec spec = ModelConfig(dir()).spec();
  const std::unique_ptr<Device> device = MakeCpuDevice();
  for (const int64_t rows : {int64_t{1}, int64_t{7}, kMlpBlockRows + 1}) {
    Workspace workspace(*device, spec, DType::kBF16, rows);
    const int64_t block = std::min(rows, kMlpBlockRows);
    const std::vector<TensorView> always = {workspace.Logits(1), workspace.Hidden(rows), workspace.Normalized(rows),
                                            workspace.Delta(rows)};
    for (std::vector<TensorView> together : {std::vector{workspace.Qkv(rows), workspace.Attended(rows)},
                                             std::vector{workspace.GateUp(block), workspace.Activated(block)}}) {
      together.insert(together.end(), always.begin(), always.end());
      std::sort(together.begin(), together.end(), [](const auto& a, const auto& b) { return a.data() < b.data(); });
      for (size_t i = 0; i + 1 < together.size(); ++i) {
        EXPECT_LE(static_cast<std::byte*>(together[i].data()) + together[i].bytes(), together[i + 1].data());
      }
      const auto* end = static_cast<std::byte*>(together.back().data()) + together.back().bytes();
      EXPECT_LE(static_cast<size_t>(end - static_cast<std::byte*>(together.front().data())),
                Workspace::Bytes(spec, DType::kBF16, rows));
    }
  }
}

TEST_F(DecoderTest, RopeTableHoldsCosineAndSineOfFloatAngles) {
  Runner runner(dir(), Backend::kScalar, 4);
  const std::unique_ptr<Device> device = MakeCpuDevice();
  const std::unique_ptr<Ops> ops = MakeScalarOps(*device);
  const PositionTables tables = runner.decoder().MakePositions(*ops, 3000, false);
  const RopeTable& rope = *tables.rope;
  EXPECT_EQ(rope.positions(), 3000);
  EXPECT_EQ(rope.rotary_dim(), 16);
  const std::vector<float>& frequencies = runner.decoder().spec().rope.inverse_frequencies;
  for (const int64_t position : {0, 1, 17, 2999}) {
    for (size_t i = 0; i < frequencies.size(); ++i) {
      const float angle = static_cast<float>(position) * frequencies[i];
      const auto at = static_cast<size_t>(position) * frequencies.size() + i;
      EXPECT_EQ(rope.cos.view.As<float>()[at], static_cast<float>(std::cos(static_cast<double>(angle))));
      EXPECT_EQ(rope.sin.view.As<float>()[at], static_cast<float>(std::sin(static_cast<double>(angle))));
    }
  }
}

}  // namespace
}  // namespace runahead
