// SentencePiece's precompiled character rules: which texts are replaced by which before a text is cut.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace runahead::tokenizer {

/// The rules of a blob that nobody vouches for: every access is checked. Const methods may run on many threads.
class Charsmap {
 public:
  Charsmap() = default;  // no rules

  /// `blob` is the bytes of `precompiled_charsmap`: the size of a double array, the array ("An Efficient
  /// Implementation of Trie Structures", Aoe 1992, in the layout of darts-clone), and the replacements, each ended by
  /// a zero byte. Throws ConfigError, opening with `origin`, when the sizes do not fit.
  Charsmap(std::string_view blob, const std::string& origin);

  struct Match {
    size_t length = 0;  // 0: no rule applies
    std::string_view replacement;
  };

  /// The rule for the longest text that `text` starts with. The replacement is UTF-8.
  [[nodiscard]] Match LongestPrefix(std::string_view text) const;

  /// The bytes of the longest replacement.
  [[nodiscard]] size_t longest() const { return longest_; }

 private:
  std::vector<uint32_t> units_;
  std::string replacements_;  // ends with a zero byte
  size_t longest_ = 0;
};

}  // namespace runahead::tokenizer
