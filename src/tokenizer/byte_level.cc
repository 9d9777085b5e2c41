#include "tokenizer/byte_level.h"

#include <array>
#include <cstddef>
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

constexpr Tables MakeTables() {
  Tables tables;
  for (int16_t& byte : tables.byte_of_character) byte = -1;
  char32_t next = kFirstStandIn;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t character = StandsForItself(byte) ? static_cast<char32_t>(byte) : next++;
    Tables::Utf8& entry = tables.utf8_of_byte[static_cast<size_t>(byte)];
    if (character < 0x80) {
      entry = {{static_cast<char>(character), 0}, 1};
    } else {
      entry = {{static_cast<char>(0xC0 | character >> 6), static_cast<char>(0x80 | (character & 0x3F))}, 2};
    }
    tables.byte_of_character[character] = static_cast<int16_t>(byte);
  }
  return tables;
}

constexpr Tables kTables = MakeTables();

}  // namespace

char* WriteByteLevel(std::string_view text, char* out) {
  for (const char byte : text) {
    const Tables::Utf8& utf8 = kTables.utf8_of_byte[static_cast<uint8_t>(byte)];
    out[0] = utf8.bytes[0];
    out[1] = utf8.bytes[1];
    out += utf8.length;
  }
  return out;
}

int ByteOfCharacter(char32_t character) {
  return character < kCharacters ? kTables.byte_of_character[character] : -1;
}

}  // namespace runahead::tokenizer
