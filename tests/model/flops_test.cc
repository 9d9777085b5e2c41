// Operation counts against numbers worked out by hand.
#include "model/flops.h"

#include <gtest/gtest.h>

namespace runahead {
namespace {

DecoderSpec SmallSpec() {
  DecoderSpec spec;
  spec.layers = 2;
  spec.vocab = 10;
  spec.hidden = 4;
  spec.q_heads = 2;
  spec.kv_heads = 1;
  spec.head_dim = 2;
  spec.ffn = 8;
  return spec;
}

TEST(FlopsTest, WholePromptByHand) {
  // One row: q 2*4*4 = 32; k and v 2*4*(2+2) = 32; out 2*4*4 = 32; gate, up and down 3*2*4*8 = 192. Head: 2*4*10
  // = 80. Attention: 2*4 for q.k and 2*4 for the values, 16 a pair; 6 pairs of 3 rows.
  const ModelFlops flops = ChunkFlops(SmallSpec(), 0, 3, LastLayer::kLastRow);
  EXPECT_EQ(flops.linear, 3 * (32 + 32 + 32 + 192) + 3 * 32 + (32 + 32 + 192) + 80);
  EXPECT_EQ(flops.attention, 16 * 6 + 16 * 3);
  EXPECT_EQ(flops.total(), flops.linear + flops.attention);
}

TEST(FlopsTest, LatentAttentionByHand) {
  // One row: queries of 2 heads 2*4*2*(3+2) = 80, which become as wide as the latent vector 2*2*3*5 = 60; that vector
  // and the key that turns 2*4*(5+2) = 56; values 2*2*5*6 = 120, out 2*4*2*6 = 96. A pair: 2*2*(5+2) for the score,
  // 2*2*5 for the vectors, 48.
  DecoderSpec spec = SmallSpec();
  spec.latent = {.rank = 5, .query_rank = 0, .plain_dim = 3, .value_dim = 6};
  const ModelFlops flops = ChunkFlops(spec, 0, 3, LastLayer::kLastRow);
  EXPECT_EQ(flops.linear, 3 * (80 + 60 + 56 + 120 + 96 + 192) + 3 * 56 + (80 + 60 + 120 + 96 + 192) + 80);
  EXPECT_EQ(flops.attention, 48 * 6 + 48 * 3);
  // Queries by way of 3 numbers: 2*4*3 and 2*3*2*(3+2).
  spec.latent.query_rank = 3;
  EXPECT_EQ(PromptFlops(spec, 1).linear - 80, 2 * (24 + 60 + 60 + 56 + 120 + 96 + 192));
  // Of a whole prompt a pair is 2*2*(3+2) for the score and 2*2*6 for the value.
  EXPECT_EQ(PromptFlops(spec, 3).attention, 2 * 44 * 6);
}

TEST(FlopsTest, MiddleChunkComputesOnlyKeysAndValuesOfTheLastLayer) {
  const ModelFlops flops = ChunkFlops(SmallSpec(), 3, 5, LastLayer::kKeysAndValues);
  EXPECT_EQ(flops.linear, 2 * (32 + 32 + 32 + 192) + 2 * 32);
  EXPECT_EQ(flops.attention, 16 * (4 + 5));
}

TEST(FlopsTest, DecodingOneTokenIsEveryWeightOnce) {
  const ModelFlops flops = ChunkFlops(SmallSpec(), 8, 9, LastLayer::kLastRow);
  EXPECT_EQ(flops.linear, 2 * (32 + 32 + 32 + 192) + 80);
  EXPECT_EQ(flops.attention, 2 * 16 * 9);
}

TEST(FlopsTest, ChunksAddUpToThePrompt) {
  const ModelFlops whole = ChunkFlops(SmallSpec(), 0, 100, LastLayer::kLastRow);
  ModelFlops sum = ChunkFlops(SmallSpec(), 0, 61, LastLayer::kKeysAndValues);
  sum += ChunkFlops(SmallSpec(), 61, 62, LastLayer::kKeysAndValues);
  sum += ChunkFlops(SmallSpec(), 62, 100, LastLayer::kLastRow);
  EXPECT_EQ(sum.linear, whole.linear);
  EXPECT_EQ(sum.attention, whole.attention);
}

TEST(FlopsTest, VisiblePairsAreThoseOfALoop) {
  for (const int64_t window : {0, 1, 3, 10, 100}) {
    for (int64_t begin = 0; begin <= 20; ++begin) {
      for (int64_t end = begin; end <= 20; ++end) {
        int64_t pairs = 0;
        for (int64_t i = begin; i < end; ++i) pairs += window == 0 ? i + 1 : std::min(i + 1, window);
        EXPECT_EQ(VisiblePairs(begin, end, window), static_cast<double>(pairs))
            << begin << " " << end << " " << window;
      }
    }
  }
}

TEST(FlopsTest, WindowsCountByLayer) {
  DecoderSpec spec = SmallSpec();
  spec.windows = {2, 0};
  EXPECT_EQ(ChunkFlops(spec, 0, 4, LastLayer::kLastRow).attention, 16 * (1 + 2 + 2 + 2) + 16 * 4);
}

TEST(FlopsTest, Llama7B) {
  DecoderSpec spec;
  spec.layers = 32;
  spec.vocab = 32000;
  spec.hidden = 4096;
  spec.q_heads = 32;
  spec.kv_heads = 32;
  spec.head_dim = 128;
  spec.ffn = 11008;
  const double n = 16384;
  const double row = 2 * (4 * 4096.0 * 4096 + 3 * 4096.0 * 11008);  // FLOPs of a row in all matrices of one layer
  const double keys_values = 2 * 2 * 4096.0 * 4096;
  const ModelFlops flops = ChunkFlops(spec, 0, 16384, LastLayer::kLastRow);
  EXPECT_EQ(flops.linear, 31 * n * row + n * keys_values + (row - keys_values) + 2 * 4096.0 * 32000);
  EXPECT_EQ(flops.attention, 4 * 4096 * (31 * n * (n + 1) / 2 + n));
  const ModelFlops prompt = PromptFlops(spec, 16384);
  EXPECT_EQ(prompt.linear, 32 * n * row + 2 * 4096.0 * 32000);
  EXPECT_EQ(prompt.attention, 32 * 4 * 4096 * n * (n + 1) / 2);
}

// DeepSeek-V2-Lite: keys and values of a row before the chunk take 512 * 256 products a head, and save 768 for each
// query that sees it.
TEST(FlopsTest, HeadsAreMadeOfLatentVectorsWhereManyQueriesSeeThem) {
  DecoderSpec spec = SmallSpec();
  spec.q_heads = 16;
  spec.head_dim = 64;
  spec.latent = {.rank = 512, .query_rank = 0, .plain_dim = 128, .value_dim = 128};
  EXPECT_TRUE(ExpandingIsLess(spec, 0, 1));
  EXPECT_TRUE(ExpandingIsLess(spec, 0, 16'384));
  EXPECT_FALSE(ExpandingIsLess(spec, 16'384, 16'385));
  EXPECT_FALSE(ExpandingIsLess(spec, 16'384, 16'384 + 168));
  EXPECT_TRUE(ExpandingIsLess(spec, 16'384, 16'384 + 170));
}

}  // namespace
}  // namespace runahead
