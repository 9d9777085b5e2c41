// Added and special tokens: texts that become one id wherever they stand, before the rest is cut.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "tokenizer/byte_trie.h"
#include "tokenizer/component.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/vocab.h"

namespace runahead::tokenizer {

/// One entry of tokenizer.json's `added_tokens`.
struct AddedToken {
  std::string content;
  bool single_word = false;  // matches only where no word character touches it
  bool lstrip = false;       // takes the spaces before it
  bool rstrip = false;       // takes the spaces behind it
  bool normalized = false;   // is normalized itself and found in the normalized text
  bool special = false;      // left out when decoding
};

/// Throws ConfigError.
AddedToken LoadAddedToken(const JsonObject& entry);

/// A stretch of text between added tokens, or (when `id` is not kNoToken) an added token.
struct Section {
  std::string_view text;
  int32_t id;
};

/// Finds the added tokens of a text. Immutable once Finish was called; Split may run on many threads.
class AddedTokens {
 public:
  /// Adds a token and returns its id: its id in `vocab`, or the next free one. A token that was added before gets the
  /// new flags.
  int32_t Add(const AddedToken& token, const Vocab& vocab);

  /// Builds the search tables. `normalizer` may be null.
  void Finish(const Normalizer* normalizer);

  /// Appends the sections of `text`, in order, none empty: first `SplitRaw` for the text as given, and then
  /// `SplitNormalized` for each normalized section.
  void SplitRaw(std::string_view text, std::vector<Section>& sections) const { Split(text, raw_, sections); }
  void SplitNormalized(std::string_view text, std::vector<Section>& sections) const {
    Split(text, normalized_, sections);
  }

  [[nodiscard]] int32_t Find(std::string_view content) const;
  [[nodiscard]] const std::unordered_map<int32_t, AddedToken>& tokens() const { return tokens_; }  // key: id
  [[nodiscard]] bool IsSpecial(std::string_view content) const { return special_.contains(std::string(content)); }
  [[nodiscard]] int32_t end_id() const { return end_id_; }  // one past the largest id

 private:
  /// The texts to look for.
  class Trie {
   public:
    // A text that is there already keeps its id.
    void Add(std::string_view text, int32_t id);
    // The longest match at the first place at or behind `from` where there is one; false when there is none.
    bool FindFirst(std::string_view text, size_t from, size_t& begin, size_t& end, int32_t& id) const;

   private:
    [[nodiscard]] size_t NextCandidate(std::string_view text, size_t from) const;

    ByteTrie texts_;
    std::string prefix_;              // prefix that all texts share
    std::array<bool, 256> starts_{};  // [byte]: some text begins with it
  };

  void Split(std::string_view text, const Trie& trie, std::vector<Section>& sections) const;

  std::vector<AddedToken> order_;  // special ones count before the others
  std::unordered_map<std::string, int32_t> ids_;
  std::unordered_map<int32_t, AddedToken> tokens_;
  std::unordered_set<std::string> special_;
  int32_t end_id_ = 0;
  Trie raw_;
  Trie normalized_;
};

}  // namespace runahead::tokenizer
