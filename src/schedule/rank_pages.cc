#include "schedule/rank_pages.h"

#include <algorithm>

#include "base/check.h"
#include "kv/kv_pages.h"

namespace runahead {

int64_t HeldPages::capacity() const { return std::ssize(pages) * kPageRows; }

RankPages::RankPages(int32_t pages) : pool_(pages), caches_{PrefixCache(kPageRows), PrefixCache(kPageRows)} {}

int32_t RankPages::available() const { return pool_.free() + evictable(); }

bool RankPages::AllAtRest() const {
  return available() == pages() && pool_.free() + caches_[0].pages() + caches_[1].pages() == pages();
}

int64_t RankPages::Cached(std::span<const int32_t> tokens, int64_t most, bool long_angles) {
  return CacheOf(long_angles).Find(tokens, most).tokens;
}

std::optional<RankPages::Start> RankPages::Begin(std::span<const int32_t> tokens, int64_t most, int64_t rows,
                                                 bool long_angles) {
  PrefixCache& cache = CacheOf(long_angles);
  PrefixMatch match = most > 0 ? cache.Find(tokens, most) : PrefixMatch();
  cache.Pin(match.pages);
  const int64_t whole = match.whole_pages();
  const int32_t after = whole > 0 ? match.pages[static_cast<size_t>(whole - 1)] : -1;
  const int64_t count = PagesOf(std::max(rows, match.tokens)) - whole;
  std::optional<PageList> taken = Take(count, after);
  if (!taken) {
    cache.Unpin(match.pages);
    if (match.partial == 0) return std::nullopt;
    // The page to copy from may be the very one that is missing.
    return Begin(tokens, whole * kPageRows, rows, long_angles);
  }
  Start start;
  start.cached = match.tokens;
  start.valid_from = match.valid_from;
  if (match.partial > 0) {
    start.copy = PageCopy{match.pages.back(), taken->front(), match.partial};
    start.held.source = match.pages.back();
    match.pages.pop_back();
  }
  start.held.pinned = match.pages;
  start.held.pages = std::move(match.pages);
  start.held.pages.insert(start.held.pages.end(), taken->begin(), taken->end());
  return start;
}

void RankPages::Copied(HeldPages& held) {
  if (!held.source) return;
  Unpin(std::span(&*held.source, 1));
  held.source.reset();
}

bool RankPages::Grow(HeldPages& held, int64_t rows) {
  const int64_t missing = PagesOf(rows) - std::ssize(held.pages);
  if (missing <= 0) return true;
  const std::optional<PageList> taken = Take(missing, held.pages.empty() ? -1 : held.pages.back());
  if (!taken) return false;
  held.pages.insert(held.pages.end(), taken->begin(), taken->end());
  return true;
}

void RankPages::Share(HeldPages& held, std::span<const int32_t> tokens, int64_t valid_from, bool long_angles) {
  PrefixCache& cache = CacheOf(long_angles);
  const auto used = std::span(held.pages).first(static_cast<size_t>(PagesOf(std::ssize(tokens))));
  for (const int32_t page : cache.Insert(tokens, used, valid_from)) {
    // A page that the cache has no use for may still be this sequence's own.
    if (std::find(used.begin(), used.end(), page) == used.end()) pool_.Give(std::span(&page, 1));
  }
  PageList pinned;
  std::copy_if(used.begin(), used.end(), std::back_inserter(pinned), [&](int32_t page) { return cache.Holds(page); });
  cache.Pin(pinned);
  Unpin(held.pinned);
  held.pinned = std::move(pinned);
}

void RankPages::End(HeldPages& held, std::span<const int32_t> tokens, int64_t valid_from, bool long_angles) {
  if (!tokens.empty()) {
    const auto used = std::span(held.pages).first(static_cast<size_t>(PagesOf(std::ssize(tokens))));
    PageList unused = CacheOf(long_angles).Insert(tokens, used, valid_from);
    std::erase_if(unused, [&](int32_t page) {  // Drop gives back what is its own
      return std::find(held.pages.begin(), held.pages.end(), page) != held.pages.end();
    });
    pool_.Give(unused);
  }
  Drop(held);
}

void RankPages::Drop(HeldPages& held) {
  Copied(held);
  PageList own;
  std::copy_if(held.pages.begin(), held.pages.end(), std::back_inserter(own),
               [&](int32_t page) { return !InACache(page); });
  pool_.Give(own);
  Unpin(held.pinned);
  held = HeldPages();
}

void RankPages::Reset(int32_t pages) {
  CHECK(AllAtRest());
  for (PrefixCache& cache : caches_) cache.Clear();
  pool_ = PagePool(pages);
}

std::optional<PageList> RankPages::Take(int64_t count, int32_t after) {
  if (count > available()) return std::nullopt;
  for (PrefixCache& cache : caches_) {
    const auto missing = static_cast<int32_t>(count - pool_.free());
    if (missing > 0) pool_.Give(cache.Evict(missing));
  }
  return pool_.Take(static_cast<int32_t>(count), after);
}

void RankPages::Unpin(std::span<const int32_t> pages) {
  for (const int32_t page : pages) caches_[caches_[1].Holds(page) ? 1 : 0].Unpin(std::span(&page, 1));
}

}  // namespace runahead
