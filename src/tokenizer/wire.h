// The wire format of protobuf messages (protobuf.dev, "Encoding"): a sequence of numbered fields.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace runahead::tokenizer {

/// Walks the fields of one message. Borrows the bytes; one thread.
class WireReader {
 public:
  /// Errors open with `origin`.
  WireReader(std::string_view bytes, std::string origin) : rest_(bytes), origin_(std::move(origin)) {}

  /// Goes to the next field; false at the end. Throws ConfigError for bytes that are no field.
  bool Next();

  [[nodiscard]] uint64_t number() const { return number_; }

  // The value of the field. Each throws ConfigError when the field is of another wire type, or a text is not UTF-8.
  [[nodiscard]] uint64_t Varint() const;
  [[nodiscard]] bool Bool() const { return Varint() != 0; }
  [[nodiscard]] float Float() const;
  [[nodiscard]] std::string_view Bytes() const;
  [[nodiscard]] std::string_view Text() const;
  [[nodiscard]] WireReader Message() const { return {Bytes(), Name()}; }

  /// "<origin>: field 7", for errors.
  [[nodiscard]] std::string Name() const;

 private:
  enum class Type { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

  uint64_t ReadVarint();
  std::string_view Take(uint64_t count);
  void Expect(Type type, const char* name) const;

  std::string_view rest_;
  std::string origin_;
  uint64_t number_ = 0;
  Type type_ = Type::kVarint;
  uint64_t varint_ = 0;
  std::string_view bytes_;  // bytes of a field that is no varint
};

}  // namespace runahead::tokenizer
