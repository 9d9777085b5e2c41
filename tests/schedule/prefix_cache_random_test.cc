// The prefix cache against a plain model over thousands of steps in which nearly everything collides.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "schedule/page_pool.h"
#include "schedule/prefix_cache.h"

namespace runahead {
namespace {

using Ids = std::vector<int32_t>;
constexpr size_t kRows = 4;  // of a page
constexpr int32_t kPages = 48;
constexpr size_t kSequences = 6;  // that run at once

enum class Owner { kPool, kSequence, kCache };

/// All that the test knows about one page.
struct Page {
  Owner owner = Owner::kPool;
  Ids prefix;              // tokens up to the last row that was written on it, all pages before it included
  Ids known;               // of these, what the cache was told
  int64_t valid_from = 0;  // as the cache was told
  int pins = 0;
};

/// A running sequence.
struct LiveSequence {
  Ids tokens;
  Ids pages;   // the cache's and its own
  Ids pinned;  // those of the cache
};

size_t CommonPrefix(const Ids& a, const Ids& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

Ids Start(const Ids& tokens, size_t count) {
  return {tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(std::min(count, tokens.size()))};
}

class World {
 public:
  World(unsigned seed, int32_t vocabulary) : random_(seed), vocabulary_(vocabulary) {}

  void Step() {
    const int kind = Draw(0, 9);
    if (sequences_.size() >= kSequences) Finish(AnySequence());
    if (kind < 4) {
      StartSequence();
    } else if (kind < 5) {
      EvictSome(Draw(0, 5));
    } else if (kind < 7) {
      if (!sequences_.empty()) GoOn(AnySequence());
    } else if (!sequences_.empty()) {
      LiveSequence& sequence = AnySequence();
      Insert(sequence, kind == 7);
      if (kind > 7) Finish(sequence);
    }
    Check();
  }

  /// Ends all sequences and empties the cache.
  void End() {
    while (!sequences_.empty()) Finish(sequences_.back());
    Check();
    EXPECT_EQ(cache_.evictable(), cache_.pages());
    EvictSome(kPages);
    Check();
    EXPECT_EQ(pool_.free(), kPages);
  }

  [[nodiscard]] int64_t matched() const { return matched_; }
  [[nodiscard]] int64_t partly() const { return partly_; }

 private:
  int32_t Draw(int32_t low, int32_t high) { return std::uniform_int_distribution<int32_t>(low, high)(random_); }
  LiveSequence& AnySequence() {
    return sequences_[static_cast<size_t>(Draw(0, static_cast<int>(sequences_.size()) - 1))];
  }
  Page& At(int32_t page) { return pages_.at(static_cast<size_t>(page)); }

  Ids SomeTokens(int32_t most) {
    Ids tokens(static_cast<size_t>(Draw(1, most)));
    for (int32_t& token : tokens) token = Draw(1, vocabulary_);
    return tokens;
  }

  /// Tokens by chance, often behind the start of a page's.
  Ids SomePrompt() {
    const Ids& known = At(Draw(0, kPages - 1)).prefix;
    Ids tokens = Start(known, static_cast<size_t>(Draw(0, static_cast<int32_t>(known.size()))));
    const Ids more = SomeTokens(9);
    tokens.insert(tokens.end(), more.begin(), more.end());
    return tokens;
  }

  /// The longest usable prefix, by looking at every page and those before it.
  int64_t Longest(const Ids& tokens, int64_t most) {
    int64_t longest = 0;
    for (const Page& page : pages_) {
      if (page.owner != Owner::kCache) continue;
      const auto length = std::min<int64_t>(most, static_cast<int64_t>(CommonPrefix(page.known, tokens)));
      const auto begin = static_cast<int64_t>((page.known.size() - 1) / kRows * kRows);
      if (length > begin && ValidFrom(page.known) <= length && page.valid_from <= length) {
        longest = std::max(longest, length);
      }
    }
    return longest;
  }

  /// The largest valid_from of the full pages before the last one of `prefix`.
  int64_t ValidFrom(const Ids& prefix) {
    int64_t valid_from = 0;
    for (size_t end = kRows; end < prefix.size(); end += kRows) {
      valid_from = std::max(valid_from, At(PageOf(Start(prefix, end))).valid_from);
    }
    return valid_from;
  }

  /// The cache's page that is known for exactly `prefix`; -1: none.
  int32_t PageOf(const Ids& prefix) {
    for (int32_t page = 0; page < kPages; ++page) {
      if (At(page).owner == Owner::kCache && At(page).known == prefix) return page;
    }
    return -1;
  }

  void Pin(const Ids& pages) {
    cache_.Pin(pages);
    for (const int32_t page : pages) ++At(page).pins;
  }

  void Unpin(const Ids& pages) {
    cache_.Unpin(pages);
    for (const int32_t page : pages) --At(page).pins;
  }

  void Free(const Ids& pages) {
    pool_.Give(pages);
    for (const int32_t page : pages) At(page) = {};
  }

  void EvictSome(int32_t count) {
    const int32_t expected = std::min(count, cache_.evictable());
    const Ids evicted = cache_.Evict(count);
    ASSERT_EQ(static_cast<int32_t>(evicted.size()), expected);
    for (const int32_t page : evicted) ASSERT_EQ(At(page).owner, Owner::kCache);
    Free(evicted);
  }

  /// Takes pages and writes the rows of all tokens of the sequence; without room it has fewer tokens afterwards.
  void WriteRows(LiveSequence& sequence) {
    const size_t wanted = (sequence.tokens.size() + kRows - 1) / kRows - sequence.pages.size();
    if (pool_.free() < static_cast<int32_t>(wanted)) EvictSome(static_cast<int32_t>(wanted) - pool_.free());
    const auto taken = pool_.Take(static_cast<int32_t>(wanted), sequence.pages.empty() ? -1 : sequence.pages.back());
    if (taken) {
      for (const int32_t page : *taken) {
        EXPECT_EQ(At(page).owner, Owner::kPool);
        At(page).owner = Owner::kSequence;
        sequence.pages.push_back(page);
      }
    }
    sequence.tokens = Start(sequence.tokens, sequence.pages.size() * kRows);
    for (size_t i = 0; i < sequence.pages.size(); ++i) {
      Page& page = At(sequence.pages[i]);
      const Ids prefix = Start(sequence.tokens, (i + 1) * kRows);
      EXPECT_EQ(Start(prefix, page.prefix.size()), Start(page.prefix, prefix.size()));
      if (page.prefix.size() < prefix.size()) page.prefix = prefix;
    }
  }

  void StartSequence() {
    LiveSequence sequence;
    sequence.tokens = SomePrompt();
    const int64_t most = Draw(0, 3) == 0 ? Draw(0, 12) : 1000;
    const PrefixMatch match = cache_.Find(sequence.tokens, most);
    ASSERT_EQ(match.tokens, Longest(sequence.tokens, most));
    ASSERT_EQ(match.whole_pages() * static_cast<int64_t>(kRows) + match.partial, match.tokens);
    for (size_t i = 0; i < match.pages.size(); ++i) {
      const Page& page = At(match.pages[i]);
      const size_t end = std::min((i + 1) * kRows, static_cast<size_t>(match.tokens));
      ASSERT_EQ(page.owner, Owner::kCache);
      ASSERT_LE(page.valid_from, match.tokens);
      ASSERT_EQ(Start(page.prefix, end), Start(sequence.tokens, end));
      ASSERT_GE(page.prefix.size(), end);
    }
    matched_ += match.tokens > 0 ? 1 : 0;
    partly_ += match.partial > 0 ? 1 : 0;
    sequence.pages = match.pages;
    Pin(match.pages);
    if (match.partial > 0) {  // a copy of one's own takes its place
      Unpin({match.pages.back()});
      sequence.pages.pop_back();
    }
    sequence.pinned = sequence.pages;
    WriteRows(sequence);
    sequences_.push_back(sequence);
  }

  void GoOn(LiveSequence& sequence) {
    const Ids more = SomeTokens(6);
    sequence.tokens.insert(sequence.tokens.end(), more.begin(), more.end());
    WriteRows(sequence);
  }

  /// Makes the rows of the sequence known. Where it goes on, it pins what the cache holds of its pages.
  void Insert(LiveSequence& sequence, bool goes_on) {
    const auto length = static_cast<int32_t>(sequence.tokens.size());
    const int64_t valid_from = Draw(0, 2) == 0 ? Draw(0, length) : 0;
    Ids returned = cache_.Insert(sequence.tokens, sequence.pages, valid_from);
    for (const int32_t page : returned) {
      if (At(page).owner != Owner::kCache) continue;
      ASSERT_EQ(At(page).pins, 0);
      Free({page});
    }
    Ids held;
    for (size_t i = 0; i < sequence.pages.size(); ++i) {
      Page& page = At(sequence.pages[i]);
      if (std::ranges::find(returned, sequence.pages[i]) != returned.end()) continue;
      const Ids prefix = Start(sequence.tokens, (i + 1) * kRows);
      if (page.owner == Owner::kSequence) {
        page.owner = Owner::kCache;
        page.known = prefix;
        page.valid_from = valid_from;
      } else if (page.known.size() < prefix.size() && PageOf(prefix) < 0) {
        page.known = prefix;
        page.valid_from = std::max(page.valid_from, valid_from);
      }
      held.push_back(sequence.pages[i]);
    }
    ASSERT_TRUE(sequence.tokens.empty() || std::ranges::any_of(pages_, [&](const Page& page) {
                  return page.owner == Owner::kCache && Start(page.known, sequence.tokens.size()) == sequence.tokens;
                }));
    if (!goes_on) held.clear();
    Pin(held);
    Unpin(sequence.pinned);
    sequence.pinned = held;
  }

  /// Frees the pages that are the sequence's own, and forgets it.
  void Finish(LiveSequence& sequence) {
    Unpin(sequence.pinned);
    Ids own;
    std::ranges::copy_if(sequence.pages, std::back_inserter(own),
                         [&](int32_t page) { return At(page).owner == Owner::kSequence; });
    Free(own);
    sequences_.erase(sequences_.begin() + (&sequence - sequences_.data()));
  }

  /// Each page has one owner, each page of the cache has those before it, and what is pinned is there.
  void Check() {
    int32_t free = 0;
    int32_t evictable = 0;
    for (int32_t number = 0; number < kPages; ++number) {
      const Page& page = At(number);
      free += page.owner == Owner::kPool ? 1 : 0;
      ASSERT_EQ(cache_.Holds(number), page.owner == Owner::kCache) << number;
      if (page.owner != Owner::kCache) continue;
      const size_t begin = (page.known.size() - 1) / kRows * kRows;
      ASSERT_TRUE(begin == 0 || PageOf(Start(page.known, begin)) >= 0) << number;
      evictable += IsHeld(number) ? 0 : 1;
    }
    ASSERT_EQ(pool_.free(), free);
    ASSERT_EQ(cache_.evictable(), evictable);
    std::set<int32_t> owned;
    for (const LiveSequence& sequence : sequences_) {
      for (const int32_t page : sequence.pages) {
        ASSERT_NE(At(page).owner, Owner::kPool);
        ASSERT_TRUE(At(page).owner == Owner::kCache || owned.insert(page).second) << page;
      }
    }
  }

  bool IsHeld(int32_t number) {
    const Ids& known = At(number).known;
    return std::ranges::any_of(pages_, [&](const Page& page) {
      if (page.pins == 0) return false;
      return &page == &At(number) || (known.size() % kRows == 0 && page.known.size() > known.size() &&
                                      Start(page.known, known.size()) == known);
    });
  }

  std::mt19937 random_;
  int32_t vocabulary_;
  PagePool pool_{kPages};
  PrefixCache cache_{kRows};
  std::vector<Page> pages_{kPages};
  std::vector<LiveSequence> sequences_;
  int64_t matched_ = 0;
  int64_t partly_ = 0;
};

TEST(PrefixCacheAtRandom, AgreesWithAPlainModel) {
  for (int32_t vocabulary = 1; vocabulary <= 3; ++vocabulary) {
    for (unsigned seed = 0; seed < 4; ++seed) {
      SCOPED_TRACE(testing::Message() << "vocabulary " << vocabulary << ", seed " << seed);
      World world(seed, vocabulary);
      for (int step = 0; step < 1500; ++step) {
        world.Step();
        if (testing::Test::HasFatalFailure()) FAIL() << "in step " << step;
      }
      world.End();
      EXPECT_GT(world.matched(), 100);
      EXPECT_GT(world.partly(), 50);
    }
  }
}

}  // namespace
}  // namespace runahead
