#include "schedule/prefix_cache.h"

#include <gtest/gtest.h>

namespace runahead {
namespace {

using Ids = std::vector<int32_t>;
constexpr int64_t kRows = 4;  // of a page
constexpr int64_t kAll = 1000;

void ExpectMatch(const PrefixMatch& match, int64_t tokens, const Ids& pages, int64_t partial) {
  EXPECT_EQ(match.tokens, tokens);
  EXPECT_EQ(match.pages, pages);
  EXPECT_EQ(match.partial, partial);
  EXPECT_EQ(match.whole_pages() * kRows + match.partial, match.tokens);
}

TEST(PrefixCache, FindsNothingInAnEmptyCache) {
  PrefixCache cache(kRows);
  ExpectMatch(cache.Find(Ids{1, 2, 3, 4, 5}, kAll), 0, {}, 0);
  ExpectMatch(cache.Find({}, kAll), 0, {}, 0);
  EXPECT_EQ(cache.pages(), 0);
  EXPECT_EQ(cache.evictable(), 0);
  EXPECT_EQ(cache.Evict(3), Ids{});
}

TEST(PrefixCache, FindsAPrefixToTheToken) {
  PrefixCache cache(kRows);
  EXPECT_EQ(cache.Insert(Ids{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, Ids{20, 21, 22}, 0), Ids{});
  EXPECT_EQ(cache.pages(), 3);
  ExpectMatch(cache.Find(Ids{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, kAll), 10, {20, 21, 22}, 2);
  ExpectMatch(cache.Find(Ids{1, 2, 3, 4, 5, 6, 7, 8, 9}, kAll), 9, {20, 21, 22}, 1);
  ExpectMatch(cache.Find(Ids{1, 2, 3, 4, 5, 6, 7, 8}, kAll), 8, {20, 21}, 0);
  ExpectMatch(cache.Find(Ids{1, 2, 3, 4, 5, 6, 0}, kAll), 6, {20, 21}, 2);
  ExpectMatch(cache.Find(Ids{1, 2, 0}, kAll), 2, {20}, 2);
  ExpectMatch(cache.Find(Ids{2, 1}, kAll), 0, {}, 0);
}

TEST(PrefixCache, CutsAMatchAtTheMostTokens) {
  PrefixCache cache(kRows);
  const Ids tokens{1, 2, 3, 4, 5, 6, 7, 8};
  ASSERT_EQ(cache.Insert(tokens, Ids{0, 1}, 0), Ids{});
  ExpectMatch(cache.Find(tokens, 8), 8, {0, 1}, 0);
  ExpectMatch(cache.Find(tokens, 7), 7, {0, 1}, 3);
  ExpectMatch(cache.Find(tokens, 4), 4, {0}, 0);
  ExpectMatch(cache.Find(tokens, 1), 1, {0}, 1);
  ExpectMatch(cache.Find(tokens, 0), 0, {}, 0);
}

TEST(PrefixCache, TakesThePageThatSharesMostRows) {
  PrefixCache cache(kRows);
  ASSERT_EQ(cache.Insert(Ids{1, 2, 9, 9}, Ids{0}, 0), Ids{});
  ASSERT_EQ(cache.Insert(Ids{1, 2, 3, 9}, Ids{1}, 0), Ids{});
  ASSERT_EQ(cache.Insert(Ids{1, 9, 9, 9}, Ids{2}, 0), Ids{});
  ExpectMatch(cache.Find(Ids{1, 2, 3, 4}, kAll), 3, {1}, 3);
  ExpectMatch(cache.Find(Ids{1, 2, 10, 4}, kAll), 2, {0}, 2);
  ExpectMatch(cache.Find(Ids{1, 10, 10, 4}, kAll), 1, {2}, 1);
}

TEST(PrefixCache, GivesDuplicatesBackAndAdoptsWhatIsNew) {
  PrefixCache cache(kRows);
  ASSERT_EQ(cache.Insert(Ids{1, 2, 3, 4, 5, 6, 7, 8}, Ids{0, 1}, 0), Ids{});
  EXPECT_EQ(cache.Insert(Ids{1, 2, 3, 4, 9, 9, 9, 9}, Ids{2, 3}, 0), Ids{2});
  ExpectMatch(cache.Find(Ids{1, 2, 3, 4, 9, 9, 9, 9}, kAll), 8, {0, 3}, 0);
  EXPECT_EQ(cache.Insert(Ids{1, 2, 3, 4, 5, 6}, Ids{4, 5}, 0), (Ids{4, 5}));  // the last one starts page 1
  EXPECT_EQ(cache.pages(), 3);
}

TEST(PrefixCache, KeepsItsOwnPagesWithoutReturningThem) {
  PrefixCache cache(kRows);
  ASSERT_EQ(cache.Insert(Ids{1, 2, 3, 4, 5, 6}, Ids{0, 1}, 0), Ids{});
  EXPECT_EQ(cache.Insert(Ids{1, 2, 3, 4, 7}, Ids{0, 2}, 0), Ids{});
  EXPECT_EQ(cache.Insert(Ids{1, 2, 3, 4, 5}, Ids{0, 1}, 0), Ids{});  // fewer rows of page 1 than it is known for
  EXPECT_EQ(cache.pages(), 3);
  ExpectMatch(cache.Find(Ids{1, 2, 3, 4, 5, 6}, kAll), 6, {0, 1}, 2);
}

TEST(PrefixCache, LetsItsOwnLastPageGrow) {
  PrefixCache cache(kRows);
  ASSERT_EQ(cache.Insert(Ids{1, 2}, Ids{0}, 0), Ids{});
  cache.Pin(Ids{0});
  EXPECT_EQ(cache.Insert(Ids{1, 2, 3}, Ids{0}, 0), Ids{});
  EXPECT_EQ(cache.Insert(Ids{1, 2, 3, 4, 5}, Ids{0, 1}, 0), Ids{});
  EXPECT_EQ(cache.pages(), 2);
  ExpectMatch(cache.Find(Ids{1, 2, 3, 4, 5}, kAll), 5, {0, 1}, 1);
  EXPECT_EQ(cache.Evict(2), Ids{1});
  cache.Unpin(Ids{0});
  EXPECT_EQ(cache.Evict(2), Ids{0});
}

TEST(PrefixCache, LetsAPageGrowPastOthers) {
  PrefixCache cache(kRows);
  ASSERT_EQ(cache.Insert(Ids{1}, Ids{0}, 0), Ids{});
  cache.Pin(Ids{0});
  ASSERT_EQ(cache.Insert(Ids{1, 1, 1}, Ids{1}, 0), Ids{});
  ASSERT_EQ(cache.Insert(Ids{1, 2}, Ids{2}, 0), Ids{});
  EXPECT_EQ(cache.Insert(Ids{1, 2, 3}, Ids{0}, 0), Ids{2});  // page 2 is no use any more
  ExpectMatch(cache.Find(Ids{1, 1, 1}, kAll), 3, {1}, 3);
  ExpectMatch(cache.Find(Ids{1, 2, 3}, kAll), 3, {0}, 3);
}

TEST(PrefixCache, ReplacesShorterLastPagesThatNobodyPins) {
  PrefixCache cache(kRows);
  ASSERT_EQ(cache.Insert(Ids{1}, Ids{0}, 0), Ids{});
  cache.Pin(Ids{0});
  ASSERT_EQ(cache.Insert(Ids{1, 2}, Ids{1}, 0), Ids{});
  ASSERT_EQ(cache.Insert(Ids{1, 1, 1}, Ids{2}, 0), Ids{});  // in order between a start of {1, 2, 3} and {1, 2}
  EXPECT_EQ(cache.Insert(Ids{1, 2, 3}, Ids{3}, 0), Ids{1});
  cache.Unpin(Ids{0});
  EXPECT_EQ(cache.Insert(Ids{1, 2, 3, 4}, Ids{4}, 0), (Ids{3, 0}));
  EXPECT_EQ(cache.pages(), 2);
  EXPECT_TRUE(cache.Holds(2));
  EXPECT_TRUE(cache.Holds(4));
}

TEST(PrefixCache, EvictsTheLeastRecentlyUsedFirstAndParentsLast) {
  PrefixCache cache(kRows);
  ASSERT_EQ(cache.Insert(Ids{1, 1, 1, 1, 2, 2, 2, 2}, Ids{0, 1}, 0), Ids{});
  EXPECT_EQ(cache.Evict(2), (Ids{1, 0}));
  ASSERT_EQ(cache.Insert(Ids{1, 1, 1, 1, 2, 2, 2, 2}, Ids{0, 1}, 0), Ids{});
  ASSERT_EQ(cache.Insert(Ids{1, 1, 1, 1, 3, 3, 3, 3}, Ids{0, 2}, 0), Ids{});
  ASSERT_EQ(cache.Insert(Ids{4, 4}, Ids{3}, 0), Ids{});
  ASSERT_EQ(cache.Find(Ids{1, 1, 1, 1, 2, 2}, kAll).tokens, 6);  // uses pages 0 and 1
  EXPECT_EQ(cache.evictable(), 4);
  EXPECT_EQ(cache.Evict(2), (Ids{2, 3}));
  EXPECT_EQ(cache.Evict(9), (Ids{1, 0}));
  EXPECT_EQ(cache.pages(), 0);
}

TEST(PrefixCache, NeverEvictsAPinnedPageNorOneBeforeIt) {
  PrefixCache cache(kRows);
  ASSERT_EQ(cache.Insert(Ids{1, 1, 1, 1, 2, 2, 2, 2, 3}, Ids{0, 1, 2}, 0), Ids{});
  ASSERT_EQ(cache.Insert(Ids{1, 1, 1, 1, 4}, Ids{0, 3}, 0), Ids{});
  cache.Pin(Ids{1});
  cache.Pin(Ids{1});
  EXPECT_EQ(cache.evictable(), 2);
  EXPECT_EQ(cache.Evict(9), (Ids{2, 3}));
  cache.Unpin(Ids{1});
  EXPECT_EQ(cache.evictable(), 0);
  EXPECT_EQ(cache.Evict(9), Ids{});
  cache.Pin(Ids{0});
  cache.Unpin(Ids{1});
  EXPECT_EQ(cache.evictable(), 1);
  EXPECT_EQ(cache.Evict(9), Ids{1});
  cache.Unpin(Ids{0});
  EXPECT_EQ(cache.Evict(9), Ids{0});
}

TEST(PrefixCache, UsesRowsOnlyInAPrefixThatIsLongEnoughForThem) {
  PrefixCache cache(kRows);
  ASSERT_EQ(cache.Insert(Ids{1, 1, 1, 1, 2, 2, 2, 2, 3, 3}, Ids{0, 1, 2}, 6), Ids{});
  ExpectMatch(cache.Find(Ids{1, 1, 1, 1, 2, 2, 2, 2, 3}, kAll), 9, {0, 1, 2}, 1);
  ExpectMatch(cache.Find(Ids{1, 1, 1, 1, 2, 2, 9}, kAll), 6, {0, 1}, 2);
  ExpectMatch(cache.Find(Ids{1, 1, 1, 1, 2, 9}, kAll), 0, {}, 0);
  ExpectMatch(cache.Find(Ids{1, 1, 1, 1}, kAll), 0, {}, 0);
}

TEST(PrefixCache, FallsBackToWhatIsValid) {
  PrefixCache cache(kRows);
  ASSERT_EQ(cache.Insert(Ids{1, 1, 1, 1, 5}, Ids{0, 1}, 0), Ids{});
  ASSERT_EQ(cache.Insert(Ids{1, 1, 1, 1, 2, 2, 2, 2, 3}, Ids{0, 2, 3}, 9), Ids{});
  ASSERT_EQ(cache.Insert(Ids{1, 1, 1, 1, 2, 2, 2, 1}, Ids{0, 4}, 0), Ids{});
  ExpectMatch(cache.Find(Ids{1, 1, 1, 1, 2, 2, 2, 2, 3}, kAll), 9, {0, 2, 3}, 1);
  ExpectMatch(cache.Find(Ids{1, 1, 1, 1, 2, 2, 2, 2, 4}, kAll), 7, {0, 4}, 3);
  ExpectMatch(cache.Find(Ids{1, 1, 1, 1, 2, 2, 3}, kAll), 6, {0, 4}, 2);
}

TEST(PrefixCache, PrefersRowsThatAreValidInShorterPrefixes) {
  PrefixCache cache(kRows);
  const Ids tokens{1, 1, 1, 1, 2, 2};
  ASSERT_EQ(cache.Insert(tokens, Ids{0, 1}, 6), Ids{});
  cache.Pin(Ids{0});
  EXPECT_EQ(cache.Insert(tokens, Ids{2, 3}, 0), (Ids{2, 1}));  // page 0 is in use
  cache.Unpin(Ids{0});
  EXPECT_EQ(cache.Insert(tokens, Ids{4, 3}, 0), Ids{0});
  ExpectMatch(cache.Find(tokens, kAll), 6, {4, 3}, 2);
  ExpectMatch(cache.Find(tokens, 4), 4, {4}, 0);
  EXPECT_EQ(cache.Insert(tokens, Ids{5, 6}, 6), (Ids{5, 6}));
  EXPECT_EQ(cache.Insert(Ids{1, 1, 1, 1, 2, 2, 2}, Ids{4, 7}, 7), Ids{});  // longer, but page 3 is more widely valid
  EXPECT_EQ(cache.Insert(Ids{1, 1, 1, 1, 2}, Ids{4, 8}, 0), Ids{8});
  ASSERT_EQ(cache.Insert(Ids{3, 3, 3}, Ids{9}, 3), Ids{});
  EXPECT_EQ(cache.Insert(Ids{3, 3}, Ids{10}, 0), Ids{});  // shorter, but more widely valid than page 9
  ExpectMatch(cache.Find(Ids{3, 3, 4}, kAll), 2, {10}, 2);
  ExpectMatch(cache.Find(Ids{3, 3, 3}, kAll), 3, {9}, 3);
}

TEST(PrefixCacheDeathTest, RefusesWhatItDoesNotHold) {
  PrefixCache cache(kRows);
  ASSERT_EQ(cache.Insert(Ids{1, 2, 3}, Ids{0}, 0), Ids{});
  EXPECT_DEATH(cache.Pin(Ids{1}), "prefix_cache.cc");
  EXPECT_DEATH(cache.Unpin(Ids{0}), "prefix_cache.cc");
  EXPECT_DEATH((void)cache.Insert(Ids{1, 2, 3, 4, 5}, Ids{1}, 0), "prefix_cache.cc");  // a page too few
  EXPECT_DEATH((void)cache.Insert(Ids{1, 3}, Ids{0}, 0), "prefix_cache.cc");           // page 0 has other rows
}

}  // namespace
}  // namespace runahead
