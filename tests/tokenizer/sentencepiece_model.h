// Small SentencePiece models as bytes, for tests.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model_folder.h"
#include "tokenizer/sentencepiece_file.h"

namespace runahead::tokenizer {

// The wire format: a field's number and type, then its value.
inline std::string WireVarint(uint64_t value) {
  std::string bytes;
  for (; value > 0x7F; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes += static_cast<char>(value);
}
inline std::string WireNumber(uint64_t field, uint64_t value) { return WireVarint(field << 3) + WireVarint(value); }
inline std::string WireBytes(uint64_t field, std::string_view bytes) {
  return WireVarint(field << 3 | 2) + WireVarint(bytes.size()) + std::string(bytes);
}
inline std::string WireFloat(uint64_t field, float value) {
  std::string bytes = WireVarint(field << 3 | 5);
  const auto bits = std::bit_cast<uint32_t>(value);
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(bits >> (8 * i));
  return bytes;
}

inline std::string PieceBytes(std::string_view text, float score, PieceKind kind = PieceKind::kNormal) {
  return WireBytes(1, WireBytes(1, text) + WireFloat(2, score) + WireNumber(3, static_cast<uint64_t>(kind)));
}

/// "<unk>", "<s>" and "</s>", which have the ids 0 to 2.
inline std::string FirstPieces() {
  return PieceBytes("<unk>", 0, PieceKind::kUnknown) + PieceBytes("<s>", 0, PieceKind::kControl) +
         PieceBytes("</s>", 0, PieceKind::kControl);
}

/// Pieces for all bytes.
inline std::string BytePieces() {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string pieces;
  for (size_t byte = 0; byte < 256; ++byte) {
    pieces += PieceBytes(std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + '>', 0, PieceKind::kByte);
  }
  return pieces;
}

inline std::string Trainer(PieceModel model, bool byte_fallback = false) {
  return WireBytes(2, WireNumber(3, static_cast<uint64_t>(model)) + WireNumber(35, byte_fallback ? 1 : 0));
}

/// What is done to a text: `settings` are fields of the message NormalizerSpec.
inline std::string Rules(std::string_view settings) { return WireBytes(3, settings); }

/// A text is encoded as it is: no dummy space, no spaces taken away.
inline std::string NoRules() { return Rules(WireNumber(3, 0) + WireNumber(4, 0)); }

inline Tokenizer LoadPieces(std::string_view bytes, const Json& config = Json::object()) {
  const TemporaryFolder folder;
  WriteFile(folder.path() / "tokenizer.model", bytes);
  WriteFile(folder.path() / "tokenizer_config.json", config.dump());
  return Tokenizer::Load(folder.path());
}

}  // namespace runahead::tokenizer
