// Which pages of one rank's KV-cache are free.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace runahead {

/// Hands out the pages 0 to pages() - 1 and takes them back. Knows page numbers only, no memory. Free pages that
/// follow each other are one run; taking and giving cost O(log(runs)) a page. Deterministic. Not thread-safe.
class PagePool {
 public:
  /// All `pages` are free.
  explicit PagePool(int32_t pages);

  [[nodiscard]] int32_t pages() const { return pages_; }
  [[nodiscard]] int32_t free() const { return free_; }

  /// `count` pages, or nothing, and then nothing changes, when fewer are free. Pages follow each other where they
  /// can: first those right behind page `after` (-1: none), so that a growing sequence stays consecutive; then the
  /// start of the smallest run that is long enough; without one, whole runs, the longest first.
  [[nodiscard]] std::optional<std::vector<int32_t>> Take(int32_t count, int32_t after = -1);

  /// Frees `pages`, in any order; each must have been taken.
  void Give(std::span<const int32_t> pages);

 private:
  void AddRun(int32_t begin, int32_t length);
  void RemoveRun(int32_t begin, int32_t length);
  /// Moves the first pages of the run at `begin`, at most `most` of them, to the end of `taken`.
  void TakeStart(int32_t begin, int32_t most, std::vector<int32_t>& taken);
  void GiveOne(int32_t page);

  int32_t pages_;
  int32_t free_ = 0;
  std::map<int32_t, int32_t> runs_;                  // first page to number of pages of each free run
  std::set<std::pair<int32_t, int32_t>> by_length_;  // (number of pages, first page) of each free run
};

}  // namespace runahead
