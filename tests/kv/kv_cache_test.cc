#include "kv/kv_cache.h"

#include <gtest/gtest.h>

#include "runahead/error.h"
#include "tensor/cpu_device.h"

namespace runahead {
namespace {

constexpr KvShape kShape{.layers = 3, .kv_heads = 2, .head_dim = 5, .dtype = DType::kBF16};

TEST(KvShape, CountsKeysAndValuesOfAllLayers) { EXPECT_EQ(kShape.BytesPerToken(), 2U * 3 * 2 * 5 * 2); }

// [layer][K|V][token][kv_head][head_dim]: rows of a layer are one slab of keys and one of values.
TEST(KvCache, LaysOutLayersThenKeysAndValuesThenTokens) {
  const auto device = MakeCpuDevice();
  const KvCache cache(*device, kShape, 7);
  const auto* const start = static_cast<const std::byte*>(cache.Span(0, 0, 7).k.data());
  constexpr ptrdiff_t kRow = 2 * 5 * 2;  // bytes
  for (int layer = 0; layer < 3; ++layer) {
    const KvSpan span = cache.Span(layer, 2, 6);
    EXPECT_EQ(static_cast<const std::byte*>(span.k.data()) - start, (2 * layer * 7 + 2) * kRow);
    EXPECT_EQ(static_cast<const std::byte*>(span.v.data()) - start, ((2 * layer + 1) * 7 + 2) * kRow);
    EXPECT_TRUE(span.k.contiguous());
    EXPECT_EQ(span.k.shape(), (Shape{4, 2, 5}));
    EXPECT_EQ(span.rows(), 4);
    EXPECT_EQ(span.bytes(), 2U * 4 * kRow);
  }
  EXPECT_EQ(cache.Span(1, 3, 3).bytes(), 0U);
}

TEST(KvCache, RefusesWhatDoesNotFitByTheBytesItNeeds) {
  const auto device = MakeCpuDevice();
  constexpr int64_t kTokens = int64_t{1} << 44;
  try {
    const KvCache cache(*device, kShape, kTokens);
    FAIL() << "a cache of a petabyte was made";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find(std::to_string(static_cast<uint64_t>(kTokens) * 120)), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace runahead
