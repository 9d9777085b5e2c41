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

/// A queue of (rank, position) with one bucket per rank, so that pushing and popping take constant time. Two entries of
/// one rank can only be in each other's way when the pair is a symbol beside itself ("aa" in "aaa"); only such entries
/// come out by position, the others in any order within their rank. Entries may be stale: the caller checks. Once empty
/// it can be used again. One thread.
class MergeQueue {
 public:
  struct Entry {
    uint32_t rank;
    uint32_t position;
  };

  explicit MergeQueue(size_t ranks)
      : heads_(ranks, kEnd), full_((ranks + 63) / 64), full_blocks_((full_.size() + 63) / 64) {}

  void Push(Entry entry, bool same_symbols) {
    if (same_symbols) {
      twins_[entry.rank].Push(entry.position);
    } else {
      uint32_t node = free_;
      if (node == kEnd) {
        node = static_cast<uint32_t>(nodes_.size());
        nodes_.emplace_back();
      } else {
        free_ = nodes_[node].next;
      }
      nodes_[node] = {entry.position, heads_[entry.rank]};
      heads_[entry.rank] = node;
    }
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
    bool empty = false;
    if (const uint32_t node = heads_[entry.rank]; node != kEnd) {
      entry.position = nodes_[node].position;
      heads_[entry.rank] = nodes_[node].next;
      nodes_[node].next = free_;
      free_ = node;
      empty = heads_[entry.rank] == kEnd;
    } else {
      const auto twin = twins_.find(entry.rank);
      empty = twin->second.Pop(entry.position);
      if (empty) twins_.erase(twin);
    }
    if (empty) {
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

  /// Positions in ascending order. They mostly arrive so: only the late ones pay for a heap.
  class TwinBucket {
   public:
    void Push(uint32_t position) {
      if (ascending_.empty() || position >= ascending_.back()) {
        ascending_.push_back(position);
      } else {
        late_.push(position);
      }
    }
    // True when that was the last one.
    bool Pop(uint32_t& position) {
      const bool has_ascending = next_ < ascending_.size();
      if (!late_.empty() && (!has_ascending || late_.top() < ascending_[next_])) {
        position = late_.top();
        late_.pop();
      } else {
        position = ascending_[next_++];
      }
      return next_ == ascending_.size() && late_.empty();
    }

   private:
    std::vector<uint32_t> ascending_;
    size_t next_ = 0;
    std::priority_queue<uint32_t, std::vector<uint32_t>, std::greater<>> late_;
  };

  static constexpr uint64_t Bit(size_t index) { return uint64_t{1} << (index % 64); }

  std::vector<uint32_t> heads_;  // [rank], into nodes_
  std::vector<Node> nodes_;
  uint32_t free_ = kEnd;
  std::unordered_map<uint32_t, TwinBucket> twins_;  // a rank is in here or in heads_, never in both
  std::vector<uint64_t> full_;                      // a bit per rank: has entries
  std::vector<uint64_t> full_blocks_;               // a bit per word of full_: is not zero
  size_t lowest_block_ = 0;                         // no set bit of full_blocks_ lies below
};

}  // namespace runahead::tokenizer
