// Byte-pair encoding: a piece of text to token ids by merging neighbours, the best-ranked pair first.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "tokenizer/flat_map.h"
#include "tokenizer/merge_queue.h"
#include "tokenizer/vocab.h"
#include "tokenizer/word_cache.h"

namespace runahead::tokenizer {

/// The scratch memory of calls of Encode, with the parts of long pieces that they have met.
struct BpeScratch {
  // One symbol of a long word being merged; `next` and `previous` skip what was merged away.
  struct Symbol {
    int32_t id;
    uint32_t previous;
    uint32_t next;
    uint32_t rank;   // rank of the pair with the next symbol, or kNoRank
    int32_t merged;  // id that the pair becomes
  };

  WordCache words;
  std::vector<int32_t> ids;
  std::vector<Symbol> symbols;
  std::optional<MergeQueue> queue;
};

/// The model of a tokenizer.json or a SentencePiece file whose type is BPE. Immutable; Encode may run on many
/// threads, each with its scratch. Time is linear in the length of the text, whatever the lengths of the words.
class Bpe {
 public:
  using Scratch = BpeScratch;

  /// `model` is the file's object of that name. Throws ConfigError.
  explicit Bpe(const JsonObject& model);

  /// Any two neighbours merge that together are a normal piece, those with the highest score first. Throws
  /// ConfigError, opening with `origin`.
  Bpe(const SentencePieceFile& file, const std::string& origin);

  /// Appends the ids of one piece of UTF-8 text. Throws ConfigError when a character needs an unknown token that the
  /// vocabulary lacks.
  void Encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& out) const;

  [[nodiscard]] const Vocab& vocab() const { return vocab_; }

 private:
  void SetCharacter(std::string_view token, int32_t id);
  void FillAsciiJoins();
  void LoadSpecialTokens(const JsonObject& model);
  void LoadMerges(const JsonObject& model);
  int32_t AddMerge(std::string_view left, std::string_view right, uint32_t rank, int32_t guess);
  void LoadPieces(const SentencePieceFile& file);
  void AddMergesInto(std::string_view piece, int32_t id, uint32_t rank, const std::vector<bool>& normal);
  void ResolveSymbols(std::vector<int32_t>& ids) const;

  void MergeWord(std::string_view word, BpeScratch& scratch) const;
  void InitialSymbols(std::string_view word, std::vector<int32_t>& ids) const;
  bool AppendBytes(std::string_view character, std::vector<int32_t>& ids) const;
  void MergeShort(std::vector<int32_t>& ids) const;
  void MergeLong(BpeScratch& scratch) const;
  [[nodiscard]] size_t NextCut(std::string_view piece, size_t begin) const;
  [[nodiscard]] bool MayJoin(char32_t left, char32_t right) const;
  [[nodiscard]] bool MaySplitAt(char32_t character) const;

  [[nodiscard]] int32_t CharacterId(char32_t character) const {
    if (character < low_characters_.size()) return low_characters_[character];
    const uint64_t id = high_characters_.Find(character);
    return id == FlatMap::kNone ? kNoToken : static_cast<int32_t>(id);
  }

  // The rank of merging two symbols in the high half, the new symbol in the low half; or FlatMap::kNone.
  [[nodiscard]] uint64_t MergeOf(int32_t left, int32_t right) const {
    return merges_.Find(uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right));
  }

  Vocab vocab_;
  std::string origin_;
  bool ignore_merges_ = false;
  bool byte_fallback_ = false;
  bool all_bytes_ = false;  // byte_fallback_ and a token for every byte: nothing is unknown
  bool fuse_unknown_ = false;
  std::string unknown_token_;
  bool has_unknown_ = false;
  int32_t unknown_id_ = kNoToken;
  std::array<int32_t, 256> byte_ids_{};
  std::array<int32_t, 0x800> low_characters_{};
  FlatMap high_characters_;
  FlatMap merges_;
  size_t ranks_ = 0;  // merges of one rank apply from left to right

  // Characters of pieces that are no pieces themselves are symbols too, numbered behind the tokens. [symbol - end_id]
  std::vector<std::string> extra_symbols_;

  // Which characters may stand side by side within a token. Where two may not, a text can be cut before merging.
  bool cuts_ = true;
  FlatMap joins_;  // left character << 32 | right character
  std::array<bool, 128 * 128> ascii_joins_{};
};

}  // namespace runahead::tokenizer
