#include "kv/kv_pages.h"

#include <gtest/gtest.h>

#include <vector>

#include "kv/kv_cache.h"
#include "tensor/cpu_device.h"

namespace runahead {
namespace {

TEST(PageTable, PagesThatFollowEachOtherAreStraight) {
  const std::vector<int32_t> pages{3, 4, 5};
  const PageTable table(pages);
  EXPECT_TRUE(table.straight());
  EXPECT_EQ(table.capacity(), 3 * kPageRows);
  EXPECT_EQ(table.RowOf(0), 3 * kPageRows);
  EXPECT_EQ(table.RowOf(2 * kPageRows + 7), 5 * kPageRows + 7);
  EXPECT_EQ(table.StraightEnd(5, 300), 300);
}

TEST(PageTable, RowsEndWhereTheNextPageLiesElsewhere) {
  const std::vector<int32_t> pages{7, 8, 2, 3, 1};
  const PageTable table(pages);
  EXPECT_FALSE(table.straight());
  EXPECT_EQ(table.RowOf(kPageRows + 1), 8 * kPageRows + 1);
  EXPECT_EQ(table.RowOf(2 * kPageRows), 2 * kPageRows);
  EXPECT_EQ(table.StraightEnd(0, 5 * kPageRows), 2 * kPageRows);
  EXPECT_EQ(table.StraightEnd(10, 20), 20);
  EXPECT_EQ(table.StraightEnd(2 * kPageRows + 1, 5 * kPageRows), 4 * kPageRows);
  EXPECT_EQ(table.StraightEnd(4 * kPageRows, 4 * kPageRows + 1), 4 * kPageRows + 1);
}

TEST(KvView, FindsRowsOnTheirPages) {
  const auto device = MakeCpuDevice();
  const KvShape shape{.layers = 2, .kv_heads = 1, .head_dim = 4, .dtype = DType::kF32};
  const KvCache cache(*device, shape, 6 * kPageRows);
  const std::vector<int32_t> pages{4, 1, 2};
  const KvView view(cache, PageTable(pages));
  EXPECT_EQ(view.capacity(), 3 * kPageRows);
  const KvSpan first = view.Span(1, 3, kPageRows);
  EXPECT_EQ(first.begin, 3);
  EXPECT_EQ(first.k.data(), cache.Span(1, 4 * kPageRows + 3, 5 * kPageRows).k.data());
  const KvSpan others = view.Span(0, kPageRows, 3 * kPageRows);
  EXPECT_EQ(others.v.data(), cache.Span(0, kPageRows, 3 * kPageRows).v.data());
  EXPECT_EQ(others.rows(), 2 * kPageRows);
  const KvRows rows = view.Rows(1, kPageRows + 5);
  EXPECT_EQ(rows.rows, kPageRows + 5);
  EXPECT_EQ(rows.k.Rows(rows.RowOf(kPageRows), rows.RowOf(kPageRows) + 1).data(),
            view.Span(1, kPageRows, kPageRows + 1).k.data());
}

}  // namespace
}  // namespace runahead
