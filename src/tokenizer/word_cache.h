// Remembers the ids of words within one call, since texts repeat their words.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/hash.h"

namespace runahead::tokenizer {

/// A bounded hash table from short words to their ids; when it is full it stays as it is. One thread.
class WordCache {
 public:
  static constexpr size_t kMaxWord = 64;  // bytes

  /// The bytes of a word of at most kWholeKey bytes. A longer word has its hash here, and the table has its place in
  /// words_.
  struct Key {
    ShortKey bytes;
    uint16_t length = 0;  // 0 marks a free slot
  };

  WordCache() : slots_(kFirstSlots) {}

  /// The key of `word` (1 to kMaxWord bytes), whose place in the table is on its way from here on.
  [[nodiscard]] Key Expect(std::string_view word) const {
    const Key key = KeyOf(word);
    __builtin_prefetch(&slots_[HashOf(key) & (slots_.size() - 1)]);
    return key;
  }

  /// Appends the ids of `word` if they are known.
  bool Append(const Key& key, std::string_view word, std::vector<int32_t>& out) const {
    for (size_t at = HashOf(key) & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
      const Slot& slot = slots_[at];
      if (slot.key.length == 0) return false;
      if (!Equal(slot, key, word)) continue;
      if (slot.count == 1) {
        out.push_back(static_cast<int32_t>(slot.ids));
      } else {
        for (uint32_t i = 0; i < slot.count; ++i) out.push_back(ids_[slot.ids + i]);
      }
      return true;
    }
  }

  /// Remembers a word that Append did not know.
  void Insert(const Key& key, std::string_view word, std::span<const int32_t> ids) {
    if (size_ >= kMaxWords) return;
    if (size_ * 2 >= slots_.size()) Grow();
    Slot slot{key, 0, static_cast<uint16_t>(ids.size())};
    if (word.size() > kWholeKey) {
      slot.key.bytes.high = words_.size();
      words_ += word;
    }
    if (ids.size() == 1) {
      slot.ids = static_cast<uint32_t>(ids[0]);
    } else {
      slot.ids = static_cast<uint32_t>(ids_.size());
      ids_.insert(ids_.end(), ids.begin(), ids.end());
    }
    Place(slot);
    ++size_;
  }

 private:
  static constexpr size_t kFirstSlots = 256;
  static constexpr size_t kMaxWords = size_t{1} << 17;
  static constexpr size_t kWholeKey = 16;  // up to so many bytes, the key is the word

  struct Slot {
    Key key;
    uint32_t ids = 0;  // the id when there is one, else where they are in ids_
    uint16_t count = 0;
  };

  static Key KeyOf(std::string_view word) {
    const auto length = static_cast<uint16_t>(word.size());
    if (word.size() > kWholeKey) return {{HashBytes(word), 0}, length};
    return {ShortKeyOf(word), length};
  }

  static uint64_t HashOf(const Key& key) {
    return key.length > kWholeKey ? key.bytes.low : HashKey(key.bytes, key.length);
  }

  [[nodiscard]] bool Equal(const Slot& slot, const Key& key, std::string_view word) const {
    if (slot.key.bytes.low != key.bytes.low || slot.key.length != key.length) return false;
    if (word.size() <= kWholeKey) return slot.key.bytes.high == key.bytes.high;
    return std::memcmp(words_.data() + slot.key.bytes.high, word.data(), word.size()) == 0;
  }

  void Place(const Slot& slot) {
    size_t at = HashOf(slot.key) & (slots_.size() - 1);
    while (slots_[at].key.length != 0) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = slot;
  }

  void Grow() {
    std::vector<Slot> old(slots_.size() * 4);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.key.length != 0) Place(slot);
    }
  }

  std::vector<Slot> slots_;
  std::string words_;
  std::vector<int32_t> ids_;
  size_t size_ = 0;
};

}  // namespace runahead::tokenizer
