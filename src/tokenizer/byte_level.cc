#include "tokenizer/byte_level.h"

#include <array>

#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

constexpr bool StandsForItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr char32_t kFirstStandIn = 0x100;
constexpr size_t kCharacters = 0x144;  // 256, and 68 bytes that need a stand-in

struct Tables {
  struct Utf8 {
    std::array<char, 2> bytes{};
    uint8_t length = 0;
  };
  std::array<Utf8, 256> utf8_of_byte{};
  std::array<int16_t, kCharacters> byte_of_character{};
};

Tables MakeTables() {
  Tables tables;
  tables.byte_of_character.fill(-1);
  char32_t next = kFirstStandIn;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t character = StandsForItself(byte) ? static_cast<char32_t>(byte) : next++;
    std::string text;
    AppendUtf8(character, text);
    Tables::Utf8& entry = tables.utf8_of_byte[static_cast<size_t>(byte)];
    text.copy(entry.bytes.data(), entry.bytes.size());
    entry.length = static_cast<uint8_t>(text.size());
    tables.byte_of_character[character] = static_cast<int16_t>(byte);
  }
  return tables;
}

const Tables& ByteTables() {
  static const Tables tables = MakeTables();
  return tables;
}

}  // namespace

char* WriteByteLevel(std::string_view text, char* out) {
  const Tables& tables = ByteTables();
  for (const char byte : text) {
    const Tables::Utf8& utf8 = tables.utf8_of_byte[static_cast<uint8_t>(byte)];
    out[0] = utf8.bytes[0];
    out[1] = utf8.bytes[1];
    out += utf8.length;
  }
  return out;
}

int ByteOfCharacter(char32_t character) {
  return character < kCharacters ? ByteTables().byte_of_character[character] : -1;
}

}  // namespace runahead::tokenizer
