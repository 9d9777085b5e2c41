// Makes the BPE model of a SentencePiece file, which has scores instead of a list of merges.
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "runahead/error.h"
#include "tokenizer/bpe.h"
#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

// Trained pieces have 16 characters, and SentencePiece's trainer allows 512. It bounds the time that a file can cost.
constexpr size_t kMaxPiece = 1024;

uint64_t PairOf(uint32_t left, uint32_t right) { return uint64_t{left} << 32 | right; }

}  // namespace

Bpe::Bpe(const SentencePieceFile& file, const std::string& origin)
    : vocab_(Vocab::FromPieces(file.pieces, origin)),
      origin_(origin),
      byte_fallback_(file.byte_fallback),
      all_bytes_(file.byte_fallback),
      fuse_unknown_(true),
      has_unknown_(true) {
  low_characters_.fill(kNoToken);
  byte_ids_.fill(kNoToken);
  for (size_t index = 0; index < file.pieces.size(); ++index) {
    const Piece& piece = file.pieces[index];
    const auto id = static_cast<int32_t>(index);
    if (piece.kind == PieceKind::kNormal) SetCharacter(piece.text, id);
    if (piece.kind == PieceKind::kUnknown) unknown_id_ = id;
    if (piece.kind == PieceKind::kByte) byte_ids_[static_cast<size_t>(ByteOfPiece(piece.text))] = id;
    if (piece.kind == PieceKind::kNormal && piece.text.size() > kMaxPiece) {
      throw ConfigError(fmt::format("{}: piece {}: expected at most {} bytes, got {}", origin, index, kMaxPiece,
                                    piece.text.size()));
    }
  }
  LoadPieces(file);
  FillAsciiJoins();
}

void Bpe::LoadPieces(const SentencePieceFile& file) {
  std::vector<float> scores;
  std::vector<bool> normal(file.pieces.size());
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const Piece& piece = file.pieces[id];
    normal[id] = piece.kind == PieceKind::kNormal;
    if (!normal[id]) continue;
    scores.push_back(piece.score);
    for (size_t at = 0; at < piece.text.size(); at += Utf8Length(piece.text[at])) {
      const std::string_view character = piece.text.substr(at, Utf8Length(piece.text[at]));
      if (CharacterId(Utf8At(character.data())) != kNoToken) continue;
      SetCharacter(character, vocab_.end_id() + static_cast<int32_t>(extra_symbols_.size()));
      extra_symbols_.emplace_back(character);
    }
  }
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  ranks_ = scores.size();
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    if (!normal[id]) continue;
    const auto rank = std::lower_bound(scores.begin(), scores.end(), file.pieces[id].score, std::greater<>());
    AddMergesInto(file.pieces[id].text, static_cast<int32_t>(id), static_cast<uint32_t>(rank - scores.begin()),
                  normal);
  }
}

// A piece comes from every two symbols that it can be cut into.
void Bpe::AddMergesInto(std::string_view piece, int32_t id, uint32_t rank, const std::vector<bool>& normal) {
  const auto symbol_of = [&](std::string_view text) {
    if (text.size() == Utf8Length(text[0])) return CharacterId(Utf8At(text.data()));
    const int32_t token = vocab_.Find(text);
    return token != kNoToken && normal[static_cast<size_t>(token)] ? token : kNoToken;
  };
  for (size_t cut = Utf8Length(piece[0]); cut < piece.size(); cut += Utf8Length(piece[cut])) {
    const int32_t left = symbol_of(piece.substr(0, cut));
    if (left == kNoToken) continue;
    const int32_t right = symbol_of(piece.substr(cut));
    if (right == kNoToken) continue;
    merges_.Set(PairOf(static_cast<uint32_t>(left), static_cast<uint32_t>(right)),
                PairOf(rank, static_cast<uint32_t>(id)));
    joins_.Set(PairOf(Utf8At(piece.data() + PreviousCharacter(piece, cut)), Utf8At(piece.data() + cut)), 1);
  }
}

}  // namespace runahead::tokenizer
