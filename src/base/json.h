// Reading JSON files with errors that name the file, the field and the value.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "runahead/error.h"

namespace runahead {

using Json = nlohmann::json;

/// A field that cannot be used, by its name: "top_k" or "prompt[3]".
class FieldError : public ConfigError {
 public:
  FieldError(std::string field, const std::string& message) : ConfigError(message), field_(std::move(field)) {}
  [[nodiscard]] const std::string& field() const { return field_; }

 private:
  std::string field_;
};

/// Parses `text`; `origin` (a file's path, usually) opens every error. Refuses nesting deeper than 64 levels and
/// duplicate keys of one object. Throws ConfigError.
Json ParseJson(std::string_view text, const std::string& origin);

/// Reads and parses a whole file. Throws IoError when it cannot be read, ConfigError when it is not JSON.
Json LoadJson(const std::filesystem::path& path);

/// The integer that `value` is, however it is written: 4096, 4096.0 and 4.096e3 are the same. Nothing for what is no
/// whole number, or is beyond int64; beyond 2^53 only what has no point and no exponent.
std::optional<int64_t> WholeNumber(const Json& value);

/// A JSON object with the name of where it came from, so that a missing or mistyped field is reported by name.
/// Borrows the object.
class JsonObject {
 public:
  /// Throws ConfigError when `json` is not an object.
  JsonObject(const Json& json, std::string origin);

  [[nodiscard]] bool Has(const char* key) const;  // present and not null
  [[nodiscard]] const Json& At(const char* key) const;
  [[nodiscard]] JsonObject Object(const char* key) const;

  // Each throws ConfigError naming origin, key and value when the field is missing (unless a default is given), of
  // another type, or out of range.
  [[nodiscard]] int64_t Int(const char* key, int64_t min, int64_t max) const;
  [[nodiscard]] int64_t Int(const char* key, int64_t min, int64_t max, int64_t otherwise) const;
  [[nodiscard]] double Number(const char* key) const;
  [[nodiscard]] double Number(const char* key, double otherwise) const;
  [[nodiscard]] bool Bool(const char* key, bool otherwise) const;
  [[nodiscard]] std::string String(const char* key) const;
  [[nodiscard]] std::string String(const char* key, const std::string& otherwise) const;

  [[nodiscard]] const std::string& origin() const { return origin_; }
  [[nodiscard]] const Json& json() const { return json_; }

  /// Throws FieldError: "<origin>: <key>: <what>, got <value>".
  [[noreturn]] void Refuse(const char* key, const std::string& what) const;

 private:
  const Json& json_;
  std::string origin_;
};

}  // namespace runahead
