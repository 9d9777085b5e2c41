// What a SentencePiece model file says.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace runahead::tokenizer {

enum class PieceKind { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
enum class PieceModel { kUnigram = 1, kBpe = 2 };

/// One entry of the vocabulary; its index is its id.
struct Piece {
  std::string_view text;  // UTF-8, never empty
  float score = 0;        // finite
  PieceKind kind = PieceKind::kNormal;
};

/// The message `ModelProto` of sentencepiece_model.proto (github.com/google/sentencepiece), as far as encoding and
/// decoding need it. Borrows the bytes it was parsed from.
struct SentencePieceFile {
  std::vector<Piece> pieces;

  PieceModel model = PieceModel::kUnigram;
  bool byte_fallback = false;
  bool space_as_suffix = false;  // the dummy space goes behind the text
  std::string_view unknown_surface = " \u2047 ";
  std::string_view bos_piece = "<s>";
  std::string_view eos_piece = "</s>";

  std::string_view charsmap;  // precompiled rules, or nothing
  bool add_dummy_prefix = true;
  bool remove_extra_spaces = true;
  bool escape_spaces = true;
};

/// The byte that a piece of kind kByte stands for, written "<0x0A>"; -1 for any other text.
int ByteOfPiece(std::string_view text);

/// Reads the protobuf message. Throws ConfigError, opening with `origin` and naming field, piece and value, for
/// bytes that are no such message, for what SentencePiece itself would refuse, and for what is not implemented here:
/// word and character models, unused pieces of BPE models, denormalizers.
SentencePieceFile ParseSentencePiece(std::string_view bytes, const std::string& origin);

}  // namespace runahead::tokenizer
