#include "schedule/page_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace runahead {
namespace {

using Pages = std::vector<int32_t>;

TEST(PagePool, HandsOutPagesThatFollowEachOther) {
  PagePool pool(10);
  EXPECT_EQ(pool.Take(4), (Pages{0, 1, 2, 3}));
  EXPECT_EQ(pool.Take(3), (Pages{4, 5, 6}));
  EXPECT_EQ(pool.free(), 3);
  EXPECT_EQ(pool.pages(), 10);
}

TEST(PagePool, ChangesNothingWhenFewerAreFree) {
  PagePool pool(4);
  ASSERT_TRUE(pool.Take(2));
  EXPECT_EQ(pool.Take(3), std::nullopt);
  EXPECT_EQ(pool.free(), 2);
  EXPECT_EQ(pool.Take(2), (Pages{2, 3}));
  EXPECT_EQ(pool.Take(0), Pages{});
  EXPECT_EQ(pool.Take(1), std::nullopt);
  EXPECT_EQ(PagePool(0).Take(1), std::nullopt);
}

TEST(PagePool, GrowsASequenceBehindItsLastPage) {
  PagePool pool(12);
  ASSERT_TRUE(pool.Take(12));
  pool.Give(Pages{1, 5, 6, 7});
  EXPECT_EQ(pool.Take(1, 4), Pages{5});  // and not 1, which fits best
  EXPECT_EQ(pool.Take(3, 5), (Pages{6, 7, 1}));
}

TEST(PagePool, TakesTheRestElsewhereWhereTheRunBehindEnds) {
  PagePool pool(16);
  ASSERT_TRUE(pool.Take(16));
  pool.Give(Pages{3, 6, 7, 10, 11, 12, 13});
  EXPECT_EQ(pool.Take(3, 2), (Pages{3, 6, 7}));
  EXPECT_EQ(pool.Take(1, 15), Pages{10});  // nothing is behind the last page
}

TEST(PagePool, TakesTheSmallestRunThatIsLongEnough) {
  PagePool pool(20);
  ASSERT_TRUE(pool.Take(20));
  pool.Give(Pages{0, 1, 2, 3, 4, 8, 9, 10, 14, 15});
  EXPECT_EQ(pool.Take(3), (Pages{8, 9, 10}));
  EXPECT_EQ(pool.Take(1), Pages{14});
}

TEST(PagePool, TakesTheLongestRunsWhereNoneIsLongEnough) {
  PagePool pool(20);
  ASSERT_TRUE(pool.Take(20));
  pool.Give(Pages{0, 4, 5, 6, 10, 11, 12, 13, 16, 17});
  EXPECT_EQ(pool.Take(9), (Pages{10, 11, 12, 13, 4, 5, 6, 16, 17}));
}

TEST(PagePool, JoinsWhatIsGivenBackInAnyOrder) {
  PagePool pool(6);
  ASSERT_TRUE(pool.Take(6));
  pool.Give(Pages{4, 0, 2, 5, 1, 3});
  EXPECT_EQ(pool.Take(6), (Pages{0, 1, 2, 3, 4, 5}));
}

TEST(PagePoolDeathTest, RefusesPagesThatWereNotTaken) {
  PagePool pool(4);
  ASSERT_TRUE(pool.Take(2));
  EXPECT_DEATH(pool.Give(Pages{3}), "page_pool.cc");
  EXPECT_DEATH(pool.Give(Pages{1, 1}), "page_pool.cc");
  EXPECT_DEATH(pool.Give(Pages{-1}), "page_pool.cc");
  EXPECT_DEATH(pool.Give(Pages{4}), "page_pool.cc");
}

/// Length of the free run at the start of which `page` is; 0 when it is taken.
int32_t RunFrom(const std::set<int32_t>& free, int32_t page) {
  int32_t length = 0;
  while (free.contains(page + length)) ++length;
  return length;
}

int32_t LongestRun(const std::set<int32_t>& free) {
  int32_t longest = 0;
  for (const int32_t page : free) longest = std::max(longest, RunFrom(free, page));
  return longest;
}

TEST(PagePool, AgreesWithASetOfPagesOverManySteps) {
  constexpr int32_t kPages = 40;
  std::mt19937 random(1);
  const auto draw = [&](int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random);
  };
  PagePool pool(kPages);
  std::set<int32_t> free;
  for (int32_t page = 0; page < kPages; ++page) free.insert(page);
  Pages taken;
  for (int step = 0; step < 5000; ++step) {
    if (draw(0, 1) == 0) {
      const int32_t count = draw(0, 12);
      const int32_t after =
          taken.empty() ? -1 : taken[static_cast<size_t>(draw(0, static_cast<int>(taken.size()) - 1))];
      const int32_t behind = std::min(count, after < 0 ? 0 : RunFrom(free, after + 1));
      const bool fits = LongestRun(free) >= count;
      const auto pages = pool.Take(count, after);
      ASSERT_EQ(pages.has_value(), count <= static_cast<int32_t>(free.size()));
      if (!pages) continue;
      ASSERT_EQ(static_cast<int32_t>(pages->size()), count);
      for (int32_t i = 0; i < behind; ++i) ASSERT_EQ((*pages)[static_cast<size_t>(i)], after + 1 + i);
      if (behind == 0 && fits && count > 0) {
        ASSERT_EQ(pages->back(), pages->front() + count - 1);
      }
      for (const int32_t page : *pages) ASSERT_EQ(free.erase(page), 1U);
      taken.insert(taken.end(), pages->begin(), pages->end());
    } else {
      std::shuffle(taken.begin(), taken.end(), random);
      const size_t kept = static_cast<size_t>(draw(0, static_cast<int32_t>(taken.size())));
      pool.Give(std::span(taken).subspan(kept));
      free.insert(taken.begin() + static_cast<std::ptrdiff_t>(kept), taken.end());
      taken.resize(kept);
    }
    ASSERT_EQ(pool.free(), static_cast<int32_t>(free.size()));
  }
}

}  // namespace
}  // namespace runahead
