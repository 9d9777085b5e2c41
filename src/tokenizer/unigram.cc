#include "tokenizer/unigram.h"

#include <algorithm>
#include <limits>

#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

constexpr float kUnknownPenalty = 10;  // distance below the worst piece's score, as in SentencePiece

}  // namespace

Unigram::Unigram(const SentencePieceFile& file, const std::string& origin)
    : vocab_(Vocab::FromPieces(file.pieces, origin)),
      scores_(file.pieces.size()),
      user_defined_(file.pieces.size()),
      max_score_(std::numeric_limits<float>::min()) {
  if (file.byte_fallback) byte_ids_.resize(256);
  float min_score = std::numeric_limits<float>::max();
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const Piece& piece = file.pieces[id];
    scores_[id] = piece.score;
    switch (piece.kind) {
      case PieceKind::kNormal:
        min_score = std::min(min_score, piece.score);
        max_score_ = std::max(max_score_, piece.score);
        pieces_.Add(piece.text, static_cast<int32_t>(id));
        break;
      case PieceKind::kUserDefined:
        user_defined_[id] = true;
        pieces_.Add(piece.text, static_cast<int32_t>(id));
        break;
      case PieceKind::kUnknown:
        unknown_id_ = static_cast<int32_t>(id);
        break;
      case PieceKind::kByte:
        byte_ids_[static_cast<size_t>(ByteOfPiece(piece.text))] = static_cast<int32_t>(id);
        break;
      case PieceKind::kControl:
      case PieceKind::kUnused:
        break;
    }
  }
  unknown_score_ = min_score - kUnknownPenalty;
}

void Unigram::Encode(std::string_view text, Scratch& scratch, std::vector<int32_t>& out) const {
  FindPlaces(text, scratch.places);
  scratch.ends.clear();
  for (auto end = static_cast<uint32_t>(text.size()); end > 0; end = scratch.places[end].begin) {
    scratch.ends.push_back(end);
  }
  bool after_unknown = false;
  for (size_t i = scratch.ends.size(); i-- > 0;) {
    const Scratch::Place& place = scratch.places[scratch.ends[i]];
    const bool unknown = place.id == unknown_id_;
    if (!unknown) {
      out.push_back(place.id);
    } else if (!byte_ids_.empty()) {
      for (const char byte : text.substr(place.begin, scratch.ends[i] - place.begin)) {
        out.push_back(byte_ids_[static_cast<uint8_t>(byte)]);
      }
    } else if (!after_unknown) {
      out.push_back(unknown_id_);
    }
    after_unknown = unknown;
  }
}

// Viterbi's algorithm from left to right. The sums are rounded as SentencePiece rounds them, since long texts have
// many cuts that differ by less.
void Unigram::FindPlaces(std::string_view text, std::vector<Scratch::Place>& places) const {
  places.assign(text.size() + 1, {});
  const auto offer = [&](size_t begin, size_t end, int32_t id, float score) {
    Scratch::Place& place = places[end];
    if (place.begin != Scratch::kNowhere && !(score > place.score)) return;
    place = {id, score, static_cast<uint32_t>(begin)};
  };
  for (size_t begin = 0; begin < text.size();) {
    const float score = places[begin].score;
    const size_t character = begin + Utf8Length(text[begin]);
    bool has_character = false;
    uint64_t node = ByteTrie::kRoot;
    for (size_t at = begin; at < text.size(); ++at) {
      node = pieces_.Step(node, text[at]);
      if (node == ByteTrie::kNowhere) break;
      const int32_t id = pieces_.ValueAt(node);
      if (id == ByteTrie::kNone) continue;
      offer(begin, at + 1, id, ScoreOf(id, at + 1 - begin) + score);
      has_character = has_character || at + 1 == character;
    }
    if (!has_character) offer(begin, character, unknown_id_, unknown_score_ + score);
    begin = character;
  }
}

// User-defined pieces always win.
double Unigram::ScoreOf(int32_t id, size_t length) const {
  const auto index = static_cast<size_t>(id);
  if (user_defined_[index]) return static_cast<double>(static_cast<float>(length) * max_score_) - 0.1;
  return scores_[index];
}

}  // namespace runahead::tokenizer
