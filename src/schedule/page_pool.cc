#include "schedule/page_pool.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"

namespace runahead {

PagePool::PagePool(int32_t pages) : pages_(pages) {
  CHECK_GE(pages, 0);
  if (pages > 0) AddRun(0, pages);
}

std::optional<std::vector<int32_t>> PagePool::Take(int32_t count, int32_t after) {
  CHECK_GE(count, 0);
  if (count > free_) return std::nullopt;
  std::vector<int32_t> taken;
  taken.reserve(static_cast<size_t>(count));
  if (after >= 0 && count > 0 && runs_.contains(after + 1)) TakeStart(after + 1, count, taken);
  while (static_cast<int32_t>(taken.size()) < count) {
    const int32_t missing = count - static_cast<int32_t>(taken.size());
    auto run = by_length_.lower_bound({missing, 0});
    if (run == by_length_.end()) run = by_length_.lower_bound({by_length_.rbegin()->first, 0});
    TakeStart(run->second, missing, taken);
  }
  return taken;
}

void PagePool::Give(std::span<const int32_t> pages) {
  for (const int32_t page : pages) GiveOne(page);
}

void PagePool::AddRun(int32_t begin, int32_t length) {
  runs_.emplace(begin, length);
  by_length_.emplace(length, begin);
  free_ += length;
}

void PagePool::RemoveRun(int32_t begin, int32_t length) {
  runs_.erase(begin);
  by_length_.erase({length, begin});
  free_ -= length;
}

void PagePool::TakeStart(int32_t begin, int32_t most, std::vector<int32_t>& taken) {
  const int32_t length = runs_.at(begin);
  const int32_t count = std::min(length, most);
  RemoveRun(begin, length);
  if (count < length) AddRun(begin + count, length - count);
  for (int32_t page = begin; page < begin + count; ++page) taken.push_back(page);
}

void PagePool::GiveOne(int32_t page) {
  CHECK_GE(page, 0);
  CHECK_LT(page, pages_);
  int32_t begin = page;
  int32_t length = 1;
  const auto next = runs_.upper_bound(page);
  if (next != runs_.begin()) {
    const auto [before, pages_before] = *std::prev(next);
    CHECK_LE(before + pages_before, page);  // else the page is free already
    if (before + pages_before == page) {
      begin = before;
      length += pages_before;
      RemoveRun(before, pages_before);
    }
  }
  const auto behind = runs_.find(page + 1);
  if (behind != runs_.end()) {
    const int32_t pages_behind = behind->second;
    length += pages_behind;
    RemoveRun(page + 1, pages_behind);
  }
  AddRun(begin, length);
}

}  // namespace runahead
