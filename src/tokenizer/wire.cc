#include "tokenizer/wire.h"

#include <fmt/format.h>

#include <bit>

#include "runahead/error.h"
#include "tokenizer/utf8.h"

namespace runahead::tokenizer {

bool WireReader::Next() {
  if (rest_.empty()) return false;
  const uint64_t tag = ReadVarint();
  number_ = tag >> 3;
  type_ = static_cast<Type>(tag & 7);
  switch (type_) {
    case Type::kVarint:
      varint_ = ReadVarint();
      return true;
    case Type::kFixed64:
      bytes_ = Take(8);
      return true;
    case Type::kBytes:
      bytes_ = Take(ReadVarint());
      return true;
    case Type::kFixed32:
      bytes_ = Take(4);
      return true;
  }
  throw ConfigError(fmt::format("{}: not a protobuf message: wire type {} is not known", Name(), tag & 7));
}

uint64_t WireReader::ReadVarint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = static_cast<uint8_t>(Take(1)[0]);
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  throw ConfigError(fmt::format("{}: not a protobuf message: a number has more than 10 bytes", origin_));
}

std::string_view WireReader::Take(uint64_t count) {
  if (count > rest_.size()) {
    throw ConfigError(fmt::format("{}: not a protobuf message: {} bytes are announced where {} are left", origin_,
                                  count, rest_.size()));
  }
  const std::string_view taken = rest_.substr(0, count);
  rest_.remove_prefix(count);
  return taken;
}

std::string WireReader::Name() const { return fmt::format("{}: field {}", origin_, number_); }

void WireReader::Expect(Type type, const char* name) const {
  if (type_ != type) {
    throw ConfigError(fmt::format("{}: expected {}, got wire type {}", Name(), name, static_cast<int>(type_)));
  }
}

uint64_t WireReader::Varint() const {
  Expect(Type::kVarint, "a number");
  return varint_;
}

float WireReader::Float() const {
  Expect(Type::kFixed32, "a float");
  uint32_t bits = 0;
  for (size_t i = 0; i < bytes_.size(); ++i) bits |= uint32_t{static_cast<uint8_t>(bytes_[i])} << (8 * i);
  return std::bit_cast<float>(bits);
}

std::string_view WireReader::Bytes() const {
  Expect(Type::kBytes, "bytes");
  return bytes_;
}

std::string_view WireReader::Text() const {
  const std::string_view text = Bytes();
  CheckUtf8(text, Name());
  return text;
}

}  // namespace runahead::tokenizer
