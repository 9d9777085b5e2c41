// Remembers the ids of words within one call, since texts repeat their words.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace runahead::tokenizer {

/// A bounded hash table from short words to their ids; when it is full it stays as it is. One thread.
class WordCache {
 public:
  static constexpr size_t kMaxWord = 64;  // bytes

  WordCache() : slots_(kFirstSlots) {}

  /// The ids of `word` (at most kMaxWord bytes), valid until the next Insert.
  [[nodiscard]] std::optional<std::span<const int32_t>> Find(std::string_view word) {
    hash_ = HashOf(word);
    for (size_t at = hash_ & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
      const Slot& slot = slots_[at];
      if (slot.length == 0) return std::nullopt;
      if (slot.hash == hash_ && slot.length == word.size() &&
          std::memcmp(words_.data() + slot.word, word.data(), word.size()) == 0) {
        return std::span<const int32_t>(ids_).subspan(slot.ids, slot.count);
      }
    }
  }

  /// Remembers a word that the last call of Find did not find.
  void Insert(std::string_view word, std::span<const int32_t> ids) {
    if (size_ >= kMaxWords) return;
    if (size_ * 2 >= slots_.size()) Grow();
    Slot slot{hash_,
              static_cast<uint32_t>(words_.size()),
              static_cast<uint32_t>(ids_.size()),
              static_cast<uint16_t>(word.size()),
              static_cast<uint16_t>(ids.size())};
    words_ += word;
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    Place(slot);
    ++size_;
  }

 private:
  static constexpr size_t kFirstSlots = 256;
  static constexpr size_t kMaxWords = size_t{1} << 17;

  struct Slot {
    uint64_t hash = 0;
    uint32_t word = 0;    // where in words_
    uint32_t ids = 0;     // where in ids_
    uint16_t length = 0;  // bytes of the word; 0 marks a free slot
    uint16_t count = 0;   // ids
  };

  static uint64_t Mix(uint64_t a, uint64_t b) {
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }

  static uint64_t HashOf(std::string_view word) {
    constexpr uint64_t kA = 0xA0761D6478BD642F;
    constexpr uint64_t kB = 0xE7037ED1A0B428DB;
    uint64_t hash = word.size() * kA;
    const char* at = word.data();
    size_t left = word.size();
    for (; left >= 8; at += 8, left -= 8) {
      uint64_t eight = 0;
      std::memcpy(&eight, at, 8);
      hash = Mix(hash ^ eight, kB);
    }
    uint64_t rest = 0;
    if (left >= 4) {  // two overlapping halves cover 4 to 7 bytes
      uint32_t head = 0;
      uint32_t tail = 0;
      std::memcpy(&head, at, 4);
      std::memcpy(&tail, at + left - 4, 4);
      rest = uint64_t{head} << 32 | tail;
    } else if (left > 0) {
      const auto byte = [at](size_t i) { return uint64_t{static_cast<uint8_t>(at[i])}; };
      rest = byte(0) << 16 | byte(left / 2) << 8 | byte(left - 1);
    }
    return Mix(hash ^ rest, kA);
  }

  void Place(const Slot& slot) {
    size_t at = slot.hash & (slots_.size() - 1);
    while (slots_[at].length != 0) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = slot;
  }

  void Grow() {
    std::vector<Slot> old(slots_.size() * 4);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.length != 0) Place(slot);
    }
  }

  std::vector<Slot> slots_;
  std::string words_;
  std::vector<int32_t> ids_;
  size_t size_ = 0;
  uint64_t hash_ = 0;  // of the word last looked up
};

}  // namespace runahead::tokenizer
