// Plain values as bytes: little-endian, lists behind their counts, every read checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/status.h"

namespace runahead {

/// Appends values to bytes.
class ByteWriter {
 public:
  template <typename T>
  void Put(T value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof value);
    std::memcpy(bytes_.data() + at, &value, sizeof value);
  }
  void PutText(std::string_view text) {
    PutCount(text.size());
    bytes_.append(text);
  }
  void PutCount(size_t count) { Put(static_cast<uint64_t>(count)); }
  template <typename T>
  void PutList(const std::vector<T>& values) {
    PutCount(values.size());
    for (const T& value : values) Put(value);
  }

  [[nodiscard]] const std::string& bytes() const { return bytes_; }
  [[nodiscard]] std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

/// Reads what a ByteWriter wrote, from bytes that may be anything. After the first thing that cannot be read all
/// later reads give zeros and empty lists; End says what it was. Borrows the bytes.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}

  [[nodiscard]] bool ok() const { return wrong_.empty(); }
  /// The first thing that went wrong, or bytes that are left over.
  [[nodiscard]] Status End() const;
  /// `what` is wrong, unless something was before.
  void Refuse(std::string what);

  template <typename T>
  T Get(const char* name) {
    static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
    T value{};
    if (Has(sizeof value, name)) {
      std::memcpy(&value, rest_.data(), sizeof value);
      rest_.remove_prefix(sizeof value);
    }
    return value;
  }
  bool GetBool(const char* name);
  /// A value below `end`.
  template <typename E>
  E GetEnum(const char* name, E last) {
    using Number = std::underlying_type_t<E>;
    const auto number = Get<Number>(name);
    if (number <= static_cast<Number>(last)) return static_cast<E>(number);
    Refuse(name + (": no value " + std::to_string(number)));
    return E{};
  }
  std::string GetText(const char* name);
  /// A count of things that take at least `bytes_each`: no more than there can be.
  size_t GetCount(size_t bytes_each, const char* name);
  template <typename T>
  std::vector<T> GetList(const char* name) {
    std::vector<T> values(GetCount(sizeof(T), name));
    for (T& value : values) value = Get<T>(name);
    return values;
  }

 private:
  bool Has(size_t bytes, const char* name);

  std::string_view rest_;
  std::string wrong_;
};

}  // namespace runahead
