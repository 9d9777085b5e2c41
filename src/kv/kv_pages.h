// Where the rows of one sequence lie in a cache: pages of equal size, in any order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "base/check.h"

namespace runahead {

/// Rows of a page. Attention works in blocks of as many keys (src/ops/cpu/attention_kernel.h), which lie on one page.
inline constexpr int64_t kPageRows = 128;

/// Pages that hold `rows` rows.
constexpr int64_t PagesOf(int64_t rows) { return (rows + kPageRows - 1) / kPageRows; }

/// The pages of a sequence: position p lies at row RowOf(p) of its cache. Borrows the list. Without pages position p
/// is row `first_row` + p; a list of pages that follow each other is taken as that.
class PageTable {
 public:
  PageTable() = default;
  explicit PageTable(std::span<const int32_t> pages) : capacity_(std::ssize(pages) * kPageRows), pages_(pages) {
    const auto jump = std::adjacent_find(pages.begin(), pages.end(), [](int32_t a, int32_t b) { return b != a + 1; });
    if (jump != pages.end() || pages.empty()) return;
    first_row_ = pages.front() * kPageRows;
    pages_ = {};
  }
  /// Positions [0, capacity) of a cache that one sequence has to itself.
  explicit PageTable(int64_t capacity) : capacity_(capacity) {}

  [[nodiscard]] int64_t capacity() const { return capacity_; }  // positions that there is room for
  /// Whether all rows follow each other.
  [[nodiscard]] bool straight() const { return pages_.empty(); }
  [[nodiscard]] int64_t first_row() const { return first_row_; }  // row of position 0 of a straight one
  [[nodiscard]] std::span<const int32_t> pages() const { return pages_; }

  [[nodiscard]] int64_t RowOf(int64_t position) const {
    if (straight()) return first_row_ + position;
    return pages_[static_cast<size_t>(position / kPageRows)] * kPageRows + position % kPageRows;
  }
  /// The largest e <= end such that the rows of [begin, e) follow each other; begin < end.
  [[nodiscard]] int64_t StraightEnd(int64_t begin, int64_t end) const {
    CHECK(0 <= begin && begin < end && end <= capacity_);
    if (straight()) return end;
    auto page = static_cast<size_t>(begin / kPageRows);
    const auto last = static_cast<size_t>((end - 1) / kPageRows);
    while (page < last && pages_[page + 1] == pages_[page] + 1) ++page;
    return std::min(end, static_cast<int64_t>(page + 1) * kPageRows);
  }

 private:
  int64_t capacity_ = 0;
  int64_t first_row_ = 0;
  std::span<const int32_t> pages_;
};

}  // namespace runahead
