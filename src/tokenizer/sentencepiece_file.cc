#include "tokenizer/sentencepiece_file.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "runahead/error.h"
#include "tokenizer/vocab.h"
#include "tokenizer/wire.h"

namespace runahead::tokenizer {
namespace {

/// Fields by their numbers in sentencepiece_model.proto.
class Parser {
 public:
  explicit Parser(const std::string& origin) : origin_(origin) {}

  SentencePieceFile Run(std::string_view bytes) {
    for (WireReader reader(bytes, origin_); reader.Next();) {
      switch (reader.number()) {
        case 1:
          AddPiece(reader.Message());
          break;
        case 2:
          ReadTrainer(reader.Message());
          break;
        case 3:
          ReadNormalizer(reader.Message());
          break;
        case 5:
          RefuseDenormalizer(reader.Message());
          break;
        default:  // what training and self-tests left
          break;
      }
    }
    Check();
    return std::move(file_);
  }

 private:
  [[nodiscard]] std::string NameOf(size_t id) const { return fmt::format("{}: piece {}", origin_, id); }

  void AddPiece(WireReader reader) {
    const size_t id = file_.pieces.size();
    if (id > static_cast<size_t>(kMaxTokenId)) {
      throw ConfigError(fmt::format("{}: more than {} pieces", origin_, kMaxTokenId));
    }
    Piece piece;
    while (reader.Next()) {
      if (reader.number() == 1) piece.text = reader.Text();
      if (reader.number() == 2) piece.score = reader.Float();
      if (reader.number() == 3) piece.kind = KindOf(reader.Varint(), id);
    }
    if (piece.text.empty()) throw ConfigError(fmt::format("{}: has no text", NameOf(id)));
    if (!std::isfinite(piece.score)) {
      throw ConfigError(fmt::format("{}: expected a finite score, got {}", NameOf(id), piece.score));
    }
    file_.pieces.push_back(piece);
  }

  [[nodiscard]] PieceKind KindOf(uint64_t value, size_t id) const {
    if (value < 1 || value > 6) throw ConfigError(fmt::format("{}: type {} is not known", NameOf(id), value));
    return static_cast<PieceKind>(value);
  }

  void ReadTrainer(WireReader reader) {
    while (reader.Next()) {
      switch (reader.number()) {
        case 3:
          file_.model = ModelOf(reader.Varint());
          break;
        case 24:
          file_.space_as_suffix = reader.Bool();
          break;
        case 35:
          file_.byte_fallback = reader.Bool();
          break;
        case 44:
          file_.unknown_surface = reader.Text();
          break;
        case 46:
          file_.bos_piece = reader.Text();
          break;
        case 47:
          file_.eos_piece = reader.Text();
          break;
        default:  // how the model was trained
          break;
      }
    }
  }

  [[nodiscard]] PieceModel ModelOf(uint64_t value) const {
    if (value == 1) return PieceModel::kUnigram;
    if (value == 2) return PieceModel::kBpe;
    const std::string name = value == 3 ? "WORD" : value == 4 ? "CHAR" : std::to_string(value);
    throw ConfigError(fmt::format("{}: trainer_spec: model_type: expected UNIGRAM or BPE, got {}", origin_, name));
  }

  void ReadNormalizer(WireReader reader) {
    while (reader.Next()) {
      switch (reader.number()) {
        case 2:
          file_.charsmap = reader.Bytes();
          break;
        case 3:
          file_.add_dummy_prefix = reader.Bool();
          break;
        case 4:
          file_.remove_extra_spaces = reader.Bool();
          break;
        case 5:
          file_.escape_spaces = reader.Bool();
          break;
        default:  // its name, and the rules that the charsmap was made from
          break;
      }
    }
  }

  void RefuseDenormalizer(WireReader reader) const {
    while (reader.Next()) {
      if (reader.number() == 2 && !reader.Bytes().empty()) {
        throw ConfigError(fmt::format("{}: denormalizer_spec: rules for decoding are not implemented", origin_));
      }
    }
  }

  // What SentencePiece asks of a model, and what its BPE does with unused pieces, which depends on the order of
  // merges.
  void Check() const {
    std::optional<size_t> unknown;
    size_t bytes = 0;
    for (size_t id = 0; id < file_.pieces.size(); ++id) {
      const Piece& piece = file_.pieces[id];
      if (piece.kind == PieceKind::kUnknown) {
        if (unknown.has_value()) {
          throw ConfigError(fmt::format("{}: is of type UNKNOWN, as piece {} is", NameOf(id), *unknown));
        }
        unknown = id;
      }
      if (piece.kind == PieceKind::kUnused && file_.model == PieceModel::kBpe) {
        throw ConfigError(fmt::format("{}: type UNUSED is not implemented for BPE models", NameOf(id)));
      }
      if (piece.kind == PieceKind::kByte) {
        ++bytes;
        if (!file_.byte_fallback)
          throw ConfigError(fmt::format("{}: is of type BYTE without byte_fallback", NameOf(id)));
        if (ByteOfPiece(piece.text) < 0) {
          throw ConfigError(
              fmt::format("{}: expected a byte such as <0x0A>, got \"{}\"", NameOf(id), piece.text.substr(0, 80)));
        }
      }
    }
    if (!unknown.has_value()) throw ConfigError(fmt::format("{}: no piece is of type UNKNOWN", origin_));
    // Pieces with the same text are refused elsewhere, so 256 are all bytes.
    if (file_.byte_fallback && bytes != 256) {
      throw ConfigError(fmt::format("{}: byte_fallback needs a piece for each of 256 bytes, got {}", origin_, bytes));
    }
  }

  const std::string& origin_;
  SentencePieceFile file_;
};

}  // namespace

int ByteOfPiece(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  const size_t high = kDigits.find(text[3]);
  const size_t low = kDigits.find(text[4]);
  if (high == std::string_view::npos || low == std::string_view::npos) return -1;
  return static_cast<int>(high * 16 + low);
}

SentencePieceFile ParseSentencePiece(std::string_view bytes, const std::string& origin) {
  return Parser(origin).Run(bytes);
}

}  // namespace runahead::tokenizer
