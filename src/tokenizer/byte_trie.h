// A set of texts as a tree over their bytes, each text with a number.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer/flat_map.h"

namespace runahead::tokenizer {

/// Const methods may run on many threads.
class ByteTrie {
 public:
  static constexpr int32_t kNone = -1;
  static constexpr uint64_t kRoot = 0;
  static constexpr uint64_t kNowhere = FlatMap::kNone;

  /// A text that is there already keeps its value (at least 0).
  void Add(std::string_view text, int32_t value) {
    uint64_t node = kRoot;
    for (const char byte : text) {
      const uint64_t parent = node;
      node = Step(parent, byte);
      if (node != kNowhere) continue;
      node = values_.size();
      values_.push_back(kNone);
      children_.Set(KeyOf(parent, byte), node);
    }
    if (values_[node] == kNone) values_[node] = value;
  }

  [[nodiscard]] bool empty() const { return values_.size() == 1; }

  /// The node that `byte` leads to, or kNowhere.
  [[nodiscard]] uint64_t Step(uint64_t node, char byte) const { return children_.Find(KeyOf(node, byte)); }

  /// The value of the text that ends at a node, or kNone.
  [[nodiscard]] int32_t ValueAt(uint64_t node) const { return values_[node]; }

  struct Match {
    size_t length = 0;
    int32_t value = kNone;
  };

  /// The longest text that `text` starts with; its value is kNone when there is none.
  [[nodiscard]] Match LongestPrefix(std::string_view text) const {
    Match match;
    uint64_t node = kRoot;
    for (size_t at = 0; at < text.size(); ++at) {
      node = Step(node, text[at]);
      if (node == kNowhere) break;
      if (values_[node] != kNone) match = {at + 1, values_[node]};
    }
    return match;
  }

 private:
  static uint64_t KeyOf(uint64_t node, char byte) { return node << 8 | static_cast<uint8_t>(byte); }

  FlatMap children_;                    // key: a node and a byte (KeyOf)
  std::vector<int32_t> values_{kNone};  // [node]
};

}  // namespace runahead::tokenizer
