// The single steps of decoding.
#pragma once

#include <memory>
#include <string>

#include "tokenizer/decoder.h"
#include "tokenizer/metaspace.h"
#include "tokenizer/pattern.h"

namespace runahead::tokenizer {

using Stage = std::unique_ptr<DecodeStage>;

/// Collects the text of all fragments. Borrows `text`.
Stage CollectText(std::string& text);

/// Puts a space between tokens.
Stage JoinWithSpaces(Stage next);

/// Byte-level characters to the bytes they stand for; all tokens become one. Broken UTF-8 becomes U+FFFD.
Stage BytesOfCharacters(Stage next);

/// Tokens "<0xHH>" to characters. A run of such tokens that is not UTF-8 becomes one U+FFFD per token.
Stage BytesOfTokens(Stage next);

/// All tokens become one.
Stage FuseTokens(Stage next);

struct StripSettings {
  char32_t content;
  size_t start;  // most characters removed at the start of a token
  size_t stop;   // most characters removed at its end
};
Stage StripTokens(const StripSettings& settings, Stage next);

/// Replaces within each token. Borrows both.
Stage ReplaceInTokens(const Pattern& pattern, const std::string& content, Stage next);

/// The replacement character to spaces; the first token loses its ones unless the scheme is kNever. Borrows.
Stage SpacesOfMarks(const Metaspace& metaspace, Stage next);

struct PieceSettings {
  bool byte_fallback;        // "<0x0A>" is a byte
  bool drop_dummy_space;     // the first piece loses the space mark that opens it
  bool drop_leading_spaces;  // later pieces lose theirs too while there is no text
};
/// SentencePiece's way: space marks to spaces, byte pieces to characters. A byte that is not part of one becomes
/// U+FFFD.
Stage TextOfPieces(const PieceSettings& settings, Stage next);

}  // namespace runahead::tokenizer
