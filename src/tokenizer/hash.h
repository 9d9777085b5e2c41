// Hashing of short byte strings for the tables of this folder.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace runahead::tokenizer {

/// Both halves of the product of two 64-bit numbers, folded.
inline uint64_t Mix(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

template <typename T>
uint64_t ReadBytes(const char* from) {
  T value = 0;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

/// Up to 16 bytes as two numbers, which may overlap: strings of one length are equal exactly when their keys are.
struct ShortKey {
  uint64_t low = 0;
  uint64_t high = 0;
};

inline ShortKey ShortKeyOf(std::string_view bytes) {
  const char* begin = bytes.data();
  const char* end = begin + bytes.size();
  if (bytes.size() >= 8) return {ReadBytes<uint64_t>(begin), ReadBytes<uint64_t>(end - 8)};
  if (bytes.size() >= 4) return {ReadBytes<uint32_t>(begin), ReadBytes<uint32_t>(end - 4)};
  if (bytes.empty()) return {};
  return {ReadBytes<uint8_t>(begin), ReadBytes<uint8_t>(begin + bytes.size() / 2) << 8 | ReadBytes<uint8_t>(end - 1)};
}

inline uint64_t HashKey(const ShortKey& key, size_t length) {
  return Mix(key.low ^ 0xA0761D6478BD642F, key.high ^ 0xE7037ED1A0B428DB ^ length);
}

inline uint64_t HashBytes(std::string_view bytes) {
  const size_t length = bytes.size();
  uint64_t hash = 0;
  for (; bytes.size() > 16; bytes.remove_prefix(8)) {
    hash = Mix(hash ^ ReadBytes<uint64_t>(bytes.data()), 0xE7037ED1A0B428DB);
  }
  ShortKey key = ShortKeyOf(bytes);
  key.low ^= hash;
  return HashKey(key, length);
}

}  // namespace runahead::tokenizer
