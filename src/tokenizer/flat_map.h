// A hash map from 64-bit keys to 64-bit values in one array, for the look-ups that dominate encoding.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace runahead::tokenizer {

/// Open addressing, at most three quarters full. The key kNone is reserved; Find answers kNone for a missing key.
/// Const methods may run on many threads.
class FlatMap {
 public:
  static constexpr uint64_t kNone = ~uint64_t{0};

  explicit FlatMap(size_t expected = 8) { Resize(std::bit_ceil(expected + expected / 2 + 16)); }

  /// Replaces the value of a key that is already there.
  void Set(uint64_t key, uint64_t value) {
    if (size_ * 4 >= slots_.size() * 3) Resize(slots_.size() * 2);
    Slot& slot = slots_[SlotOf(key)];
    if (slot.key == kNone) ++size_;
    slot = {key, value};
  }

  [[nodiscard]] uint64_t Find(uint64_t key) const {
    const Slot& slot = slots_[SlotOf(key)];
    return slot.key == key ? slot.value : kNone;
  }

  [[nodiscard]] size_t size() const { return size_; }

 private:
  struct Slot {
    uint64_t key = kNone;
    uint64_t value = kNone;
  };

  [[nodiscard]] size_t SlotOf(uint64_t key) const {
    uint64_t mixed = key ^ (key >> 32);
    mixed *= 0x9E3779B97F4A7C15;
    size_t at = mixed >> shift_;
    while (slots_[at].key != key && slots_[at].key != kNone) at = (at + 1) & (slots_.size() - 1);
    return at;
  }

  void Resize(size_t slots) {
    std::vector<Slot> old(slots);
    old.swap(slots_);
    shift_ = 64 - std::countr_zero(slots);
    for (const Slot& slot : old) {
      if (slot.key != kNone) slots_[SlotOf(slot.key)] = slot;
    }
  }

  std::vector<Slot> slots_;
  size_t size_ = 0;
  int shift_ = 0;
};

}  // namespace runahead::tokenizer
