// The unigram language model: a text to the token ids that are most likely together.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/byte_trie.h"
#include "tokenizer/sentencepiece_file.h"
#include "tokenizer/vocab.h"

namespace runahead::tokenizer {

/// A SentencePiece model of type UNIGRAM (Kudo 2018, "Subword Regularization", section 3.2). Immutable; Encode may
/// run on many threads, each with its scratch. Time is linear in the length of the text.
class Unigram {
 public:
  /// The scratch memory of one call.
  struct Scratch {
    // The best way to cut the text up to one place.
    struct Place {
      int32_t id = kNoToken;  // id of the last piece
      float score = 0;
      uint32_t begin = kNowhere;  // start of the last piece, bytes
    };
    static constexpr uint32_t kNowhere = ~uint32_t{0};

    std::vector<Place> places;
    std::vector<uint32_t> ends;  // ends of the best cut's pieces, the last first
  };

  /// Throws ConfigError, opening with `origin`.
  Unigram(const SentencePieceFile& file, const std::string& origin);

  /// Appends the ids of a piece of UTF-8 text.
  void Encode(std::string_view text, Scratch& scratch, std::vector<int32_t>& out) const;

  [[nodiscard]] const Vocab& vocab() const { return vocab_; }

 private:
  void FindPlaces(std::string_view text, std::vector<Scratch::Place>& places) const;
  [[nodiscard]] double ScoreOf(int32_t id, size_t length) const;

  Vocab vocab_;
  ByteTrie pieces_;
  std::vector<float> scores_;       // [id]
  std::vector<bool> user_defined_;  // [id]
  float max_score_ = 0;             // best score of a normal piece
  float unknown_score_ = 0;
  int32_t unknown_id_ = kNoToken;
  std::vector<int32_t> byte_ids_;  // [byte]; empty without byte fallback
};

}  // namespace runahead::tokenizer
