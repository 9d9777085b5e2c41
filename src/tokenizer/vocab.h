// Tokens and their ids.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "tokenizer/sentencepiece_file.h"

namespace runahead::tokenizer {

/// No real vocabulary comes near; a file that claims a larger id is refused before memory is taken for it.
inline constexpr int32_t kMaxTokenId = (1 << 20) - 1;
inline constexpr int32_t kNoToken = -1;

/// An id written in a file. Throws ConfigError, opening with `origin`, for anything but an integer in range.
int32_t LoadTokenId(const Json& value, const std::string& origin);

/// Both directions of a vocabulary; ids may have gaps.
class Vocab {
 public:
  /// Reads the object `key`: token to id. Throws ConfigError for ids that are no integers, out of range or given
  /// twice.
  static Vocab Load(const JsonObject& model, const char* key);

  /// All pieces of a SentencePiece model, each by its index. Throws ConfigError for a text that appears twice.
  static Vocab FromPieces(const std::vector<Piece>& pieces, const std::string& origin);

  /// The id of a token, or kNoToken.
  [[nodiscard]] int32_t Find(std::string_view token) const;

  /// Nothing for an id that no token has. Valid as long as the vocabulary.
  [[nodiscard]] std::optional<std::string_view> TokenOf(int32_t id) const {
    if (id < 0 || id >= end_id() || !tokens_[static_cast<size_t>(id)].used) return std::nullopt;
    return TextOf(id);
  }

  [[nodiscard]] int32_t size() const { return size_; }                                   // tokens
  [[nodiscard]] int32_t end_id() const { return static_cast<int32_t>(tokens_.size()); }  // one past the largest id

 private:
  struct Token {
    uint32_t begin : 31 = 0;  // offset into text_, bytes
    uint32_t used : 1 = 0;
    uint32_t length = 0;
  };

  // A slot of an open hash table: part of the token's hash, and its id.
  struct Slot {
    uint32_t hash = 0;
    int32_t id = kNoToken;
  };

  explicit Vocab(size_t tokens);
  void Add(std::string_view token, int32_t id, const std::string& origin);

  [[nodiscard]] std::string_view TextOf(int32_t id) const {
    const Token& token = tokens_[static_cast<size_t>(id)];
    return std::string_view(text_).substr(token.begin, token.length);
  }

  std::string text_;           // texts of all tokens, one after the other
  std::vector<Token> tokens_;  // [id]
  std::vector<Slot> slots_;    // hash table, at most half full
  int32_t size_ = 0;
};

}  // namespace runahead::tokenizer
