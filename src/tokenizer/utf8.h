// UTF-8: checking, reading and writing single characters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace runahead::tokenizer {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

/// Throws ConfigError naming `what`, the offset and the value of the first byte that is not part of a UTF-8
/// character.
void CheckUtf8(std::string_view text, std::string_view what);

/// The length in bytes of the longest prefix of `bytes` that is whole UTF-8 characters.
size_t ValidUtf8Prefix(std::string_view bytes);

/// The length of the broken sequence that starts `bytes` (1 to 3), as the Unicode standard's "maximal subpart"
/// practice counts them; 0 when `bytes` is the beginning of a character whose end may still come. `bytes` must not be
/// empty nor start with a whole character.
size_t BrokenUtf8Length(std::string_view bytes);

void AppendUtf8(char32_t character, std::string& out);

/// Bytes of the character whose first byte is `lead`, in text known to be UTF-8.
inline uint32_t Utf8Length(char lead) {
  const auto byte = static_cast<uint8_t>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// The character at `text`, which must be the start of one in text known to be UTF-8.
inline char32_t Utf8At(const char* text) {
  const auto byte = [text](int i) { return static_cast<char32_t>(static_cast<uint8_t>(text[i])); };
  switch (Utf8Length(*text)) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3:
      return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  }
}

/// The offset of the character that ends at `end` (which must be over 0) in text known to be UTF-8.
inline size_t PreviousCharacter(std::string_view text, size_t end) {
  do {
    --end;
  } while ((static_cast<uint8_t>(text[end]) & 0xC0) == 0x80);
  return end;
}

}  // namespace runahead::tokenizer
