// The pages of one rank: those of running sequences, and those of ended ones that are kept as prefixes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "schedule/page_pool.h"
#include "schedule/prefix_cache.h"
#include "worker/step_plan.h"

namespace runahead {

/// What a running sequence holds of a rank's pages.
struct HeldPages {
  PageList pages;                 // pages of positions [0, ...), in order
  PageList pinned;                // those that the prefix cache holds for it
  std::optional<int32_t> source;  // pinned until it was copied from

  [[nodiscard]] int64_t capacity() const;  // positions that there is room for
};

/// Knows no memory: what it gives are numbers of pages. Rows under short and under long angles (RopeSpec::IsLong) are
/// different rows, and never prefixes of each other's sequences. Not thread-safe.
class RankPages {
 public:
  explicit RankPages(int32_t pages);

  [[nodiscard]] int32_t pages() const { return pool_.pages(); }
  /// Pages that a sequence can have: free ones, and those of prefixes that nobody uses.
  [[nodiscard]] int32_t available() const;
  /// Pages of prefixes that no sequence uses.
  [[nodiscard]] int32_t evictable() const { return caches_[0].evictable() + caches_[1].evictable(); }
  /// Pages that belong to nobody, or to the prefix cache alone, when no sequence runs; for checks.
  [[nodiscard]] bool AllAtRest() const;

  /// Tokens of the longest prefix of `tokens`, at most `most`, whose rows are here.
  [[nodiscard]] int64_t Cached(std::span<const int32_t> tokens, int64_t most, bool long_angles);

  /// What Begin found.
  struct Start {
    HeldPages held;
    int64_t cached = 0;            // rows that are there
    int64_t valid_from = 0;        // PrefixMatch::valid_from of them
    std::optional<PageCopy> copy;  // the last of them are still on somebody else's page
  };
  /// Pages for `rows` rows of a sequence that begins with `tokens`, of which at most `most` are taken from the cache.
  /// Nothing when there are not so many pages.
  [[nodiscard]] std::optional<Start> Begin(std::span<const int32_t> tokens, int64_t most, int64_t rows,
                                           bool long_angles);
  /// The copy that Begin asked for was made.
  void Copied(HeldPages& held);
  /// Room for `rows` rows. False, and nothing changed, when there are not so many pages.
  [[nodiscard]] bool Grow(HeldPages& held, int64_t rows);

  /// Lets others use the rows of `tokens`, which are complete, while the sequence goes on. `valid_from`: see
  /// PrefixCache::Insert.
  void Share(HeldPages& held, std::span<const int32_t> tokens, int64_t valid_from, bool long_angles);
  /// The sequence has ended: the rows of `tokens` are kept as a prefix, all other pages are free.
  void End(HeldPages& held, std::span<const int32_t> tokens, int64_t valid_from, bool long_angles);
  /// The sequence has ended, and nothing of it is kept but what was shared.
  void Drop(HeldPages& held);
  /// The rank has begun anew, with `pages` pages that hold nothing. No sequence runs.
  void Reset(int32_t pages);

 private:
  [[nodiscard]] PrefixCache& CacheOf(bool long_angles) { return caches_[long_angles ? 1 : 0]; }
  [[nodiscard]] bool InACache(int32_t page) const { return caches_[0].Holds(page) || caches_[1].Holds(page); }
  [[nodiscard]] std::optional<PageList> Take(int64_t count, int32_t after);
  void Unpin(std::span<const int32_t> pages);

  PagePool pool_;
  std::array<PrefixCache, 2> caches_;  // under short and under long angles
};

}  // namespace runahead
