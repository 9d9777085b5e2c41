#include "tokenizer/utf8.h"

#include <fmt/format.h>

#include <cstring>

#include "runahead/error.h"

namespace runahead::tokenizer {
namespace {

uint8_t ByteAt(std::string_view text, size_t i) { return static_cast<uint8_t>(text[i]); }

// What may follow a lead byte: how many bytes in all, and the range of the second one (Unicode, table 3-7).
struct Sequence {
  size_t length;  // 0: not a lead byte
  uint8_t second_min;
  uint8_t second_max;
};

Sequence SequenceOf(uint8_t lead) {
  if (lead < 0x80) return {1, 0, 0};
  if (lead < 0xC2) return {0, 0, 0};
  if (lead < 0xE0) return {2, 0x80, 0xBF};
  if (lead < 0xF0) {
    const uint8_t min = lead == 0xE0 ? 0xA0 : 0x80;  // no overlong forms
    const uint8_t max = lead == 0xED ? 0x9F : 0xBF;  // no surrogates
    return {3, min, max};
  }
  if (lead < 0xF5) {
    const uint8_t min = lead == 0xF0 ? 0x90 : 0x80;
    const uint8_t max = lead == 0xF4 ? 0x8F : 0xBF;  // nothing above U+10FFFF
    return {4, min, max};
  }
  return {0, 0, 0};
}

// How many bytes at `offset` agree with the character that the first of them announces.
size_t MatchingBytes(std::string_view bytes, size_t offset, const Sequence& sequence) {
  size_t count = 1;
  while (count < sequence.length && offset + count < bytes.size()) {
    const uint8_t byte = ByteAt(bytes, offset + count);
    const uint8_t min = count == 1 ? sequence.second_min : 0x80;
    const uint8_t max = count == 1 ? sequence.second_max : 0xBF;
    if (byte < min || byte > max) break;
    ++count;
  }
  return count;
}

}  // namespace

size_t ValidUtf8Prefix(std::string_view bytes) {
  constexpr uint64_t kHighBits = 0x8080808080808080;
  size_t at = 0;
  while (at < bytes.size()) {
    uint64_t eight = 0;
    if (at + sizeof(eight) <= bytes.size()) {
      std::memcpy(&eight, bytes.data() + at, sizeof(eight));
      if ((eight & kHighBits) == 0) {
        at += sizeof(eight);
        continue;
      }
    }
    const Sequence sequence = SequenceOf(ByteAt(bytes, at));
    if (sequence.length == 0 || MatchingBytes(bytes, at, sequence) != sequence.length) return at;
    at += sequence.length;
  }
  return at;
}

size_t BrokenUtf8Length(std::string_view bytes) {
  const Sequence sequence = SequenceOf(ByteAt(bytes, 0));
  if (sequence.length == 0) return 1;
  const size_t matching = MatchingBytes(bytes, 0, sequence);
  return matching == bytes.size() ? 0 : matching;
}

void CheckUtf8(std::string_view text, std::string_view what) {
  const size_t at = ValidUtf8Prefix(text);
  if (at == text.size()) return;
  throw ConfigError(
      fmt::format("{}: byte {} (0x{:02X}) does not start a UTF-8 character", what, at, ByteAt(text, at)));
}

void AppendUtf8(char32_t character, std::string& out) {
  const auto tail = [character](int shift) { return static_cast<char>(0x80 | ((character >> shift) & 0x3F)); };
  if (character < 0x80) {
    out += static_cast<char>(character);
  } else if (character < 0x800) {
    out += static_cast<char>(0xC0 | character >> 6);
    out += tail(0);
  } else if (character < 0x10000) {
    out += static_cast<char>(0xE0 | character >> 12);
    out += tail(6);
    out += tail(0);
  } else {
    out += static_cast<char>(0xF0 | character >> 18);
    out += tail(12);
    out += tail(6);
    out += tail(0);
  }
}

}  // namespace runahead::tokenizer
