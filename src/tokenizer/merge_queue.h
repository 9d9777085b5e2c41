// Which pair of neighbouring symbols merges next: the lowest rank first, and among equal ranks the leftmost.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>
#include <queue>
#include <unordered_map>
#include <vector>

namespace runahead::tokenizer {

/// A queue of (rank, position) with one list per rank. Within a rank, positions mostly arrive in ascending order, and
/// then pushing and popping take constant time; those that arrive late go through a heap of their rank. Entries may
/// be stale: the caller checks. Once empty it can be used again. One thread.
class MergeQueue {
 public:
  struct Entry {
    uint32_t rank;
    uint32_t position;
  };

  explicit MergeQueue(size_t ranks)
      : lists_(ranks), full_((ranks + 63) / 64), full_blocks_((full_.size() + 63) / 64) {}

  void Push(Entry entry) {
    List& list = lists_[entry.rank];
    if (list.first != kEnd && entry.position < nodes_[list.last].position) {
      late_[entry.rank].push(entry.position);
      return;
    }
    const uint32_t node = NewNode(entry.position);
    if (list.first == kEnd) {
      list.first = node;
    } else {
      nodes_[list.last].next = node;
    }
    list.last = node;
    full_[entry.rank / 64] |= Bit(entry.rank);
    full_blocks_[entry.rank / 4096] |= Bit(entry.rank / 64);
    lowest_block_ = std::min<size_t>(lowest_block_, entry.rank / 4096);
  }

  /// False when nothing is left.
  bool Pop(Entry& entry) {
    while (lowest_block_ < full_blocks_.size() && full_blocks_[lowest_block_] == 0) ++lowest_block_;
    if (lowest_block_ >= full_blocks_.size()) return false;
    const size_t word = lowest_block_ * 64 + static_cast<size_t>(std::countr_zero(full_blocks_[lowest_block_]));
    entry.rank = static_cast<uint32_t>(word * 64) + static_cast<uint32_t>(std::countr_zero(full_[word]));
    List& list = lists_[entry.rank];
    const uint32_t node = list.first;
    entry.position = nodes_[node].position;
    if (!late_.empty() && PopLate(entry)) return true;
    list.first = nodes_[node].next;
    nodes_[node].next = free_;
    free_ = node;
    if (list.first == kEnd) {
      full_[word] &= ~Bit(entry.rank);
      if (full_[word] == 0) full_blocks_[lowest_block_] &= ~Bit(word);
    }
    return true;
  }

 private:
  static constexpr uint32_t kEnd = ~uint32_t{0};

  struct Node {
    uint32_t position;
    uint32_t next;
  };
  struct List {  // a list of nodes in ascending order
    uint32_t first = kEnd;
    uint32_t last = kEnd;
  };
  using Positions = std::priority_queue<uint32_t, std::vector<uint32_t>, std::greater<>>;

  static constexpr uint64_t Bit(size_t index) { return uint64_t{1} << (index % 64); }

  uint32_t NewNode(uint32_t position) {
    uint32_t node = free_;
    if (node == kEnd) {
      node = static_cast<uint32_t>(nodes_.size());
      nodes_.emplace_back();
    } else {
      free_ = nodes_[node].next;
    }
    nodes_[node] = {position, kEnd};
    return node;
  }

  // Takes a late entry of the rank that lies before `entry`, the first of its list. A late entry has a later one in
  // the list until it is taken: the list ends last.
  bool PopLate(Entry& entry) {
    const auto late = late_.find(entry.rank);
    if (late == late_.end() || late->second.top() > entry.position) return false;
    entry.position = late->second.top();
    late->second.pop();
    if (late->second.empty()) late_.erase(late);
    return true;
  }

  std::vector<List> lists_;  // [rank]
  std::vector<Node> nodes_;
  uint32_t free_ = kEnd;
  std::unordered_map<uint32_t, Positions> late_;  // key: rank; no value is empty
  std::vector<uint64_t> full_;                    // a bit per rank: has entries
  std::vector<uint64_t> full_blocks_;             // a bit per word of full_: is not zero
  size_t lowest_block_ = 0;                       // no set bit of full_blocks_ lies below
};

}  // namespace runahead::tokenizer
