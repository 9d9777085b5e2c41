#include "base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/model_folder.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxShownValue = 80;
constexpr size_t kMaxShownReason = 200;

std::string Shorten(std::string text, size_t most = kMaxShownValue) {
  if (text.size() > most) text = text.substr(0, most) + "...";
  return text;
}

/// What the library says, without the number that it gives the error: "parse error at line 1, column 9: ...".
std::string Reason(const nlohmann::detail::exception& error) {
  const std::string_view text = error.what();
  const size_t close = text.starts_with('[') ? text.find("] ") : std::string_view::npos;
  return Shorten(std::string(close == std::string_view::npos ? text : text.substr(close + 2)), kMaxShownReason);
}

std::string Show(const Json& value) {
  // TOML has numbers that JSON does not.
  if (value.is_number_float() && !std::isfinite(value.get<double>())) return fmt::format("{}", value.get<double>());
  return Shorten(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

/// Builds a document while it is read, and refuses what JSON allows but no file of a model has: deep nesting and
/// objects with a key twice. Objects are built when they end, from sorted members, which is several times faster for
/// the vocabularies of tokenizers than to look for the place of each.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(const std::string& origin) : origin_(origin) {}

  Json Take() { return std::move(root_); }

  bool null() override { return Put(nullptr); }
  bool boolean(bool value) override { return Put(value); }
  bool number_integer(number_integer_t value) override { return Put(value); }
  bool number_unsigned(number_unsigned_t value) override { return Put(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return Put(value); }
  bool string(string_t& value) override { return Put(std::move(value)); }
  bool binary(binary_t& value) override { return Put(std::move(value)); }

  bool start_object(size_t /*members*/) override { return Begin(); }
  bool start_array(size_t /*elements*/) override { return Begin(); }

  bool key(string_t& name) override {
    open_.back().keys.push_back({PrefixOf(name), open_.back().values.size(), std::move(name)});
    return true;
  }

  bool end_array() override {
    Json::array_t values = std::move(open_.back().values);
    open_.pop_back();
    return Put(std::move(values));
  }

  bool end_object() override {
    std::vector<Key> keys = std::move(open_.back().keys);
    Json::array_t values = std::move(open_.back().values);
    open_.pop_back();
    std::sort(keys.begin(), keys.end());
    Json::object_t members;
    for (Key& key : keys) {
      const size_t before = members.size();
      const auto member = members.try_emplace(members.end(), std::move(key.name), std::move(values[key.value]));
      if (members.size() == before) {
        throw ConfigError(fmt::format("{}: key {} appears twice in one object", origin_, Show(Json(member->first))));
      }
    }
    return Put(std::move(members));
  }

  bool parse_error(size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    throw ConfigError(fmt::format("{}: not valid JSON: {}", origin_, Reason(error)));
  }

 private:
  struct Key {
    uint64_t prefix;  // orders most names at once
    size_t value;     // index in values
    std::string name;

    bool operator<(const Key& other) const {
      return prefix != other.prefix ? prefix < other.prefix : name < other.name;
    }
  };

  /// An object or array that has not ended.
  struct Open {
    std::vector<Key> keys;  // keys of an object, empty for an array
    Json::array_t values;
  };

  // The first eight bytes as a number that sorts as they do.
  static uint64_t PrefixOf(const std::string& name) {
    uint64_t prefix = 0;
    for (size_t i = 0; i < sizeof(prefix); ++i) {
      prefix = prefix << 8 | (i < name.size() ? static_cast<uint8_t>(name[i]) : 0);
    }
    return prefix;
  }

  bool Put(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else {
      open_.back().values.push_back(std::move(value));
    }
    return true;
  }

  bool Begin() {
    if (open_.size() == kMaxDepth) {
      throw ConfigError(fmt::format("{}: JSON is nested deeper than {} levels", origin_, kMaxDepth));
    }
    open_.emplace_back();
    return true;
  }

  const std::string& origin_;
  Json root_;
  std::vector<Open> open_;  // the innermost last
};

/// Python writes numbers that JSON has not as NaN, Infinity and -Infinity: they become strings, which are refused
/// where a number is needed.
std::string QuoteNonNumbers(std::string_view text) {
  std::string quoted;
  bool in_string = false;
  for (size_t i = 0; i < text.size();) {
    size_t taken = 1;
    if (in_string) {
      in_string = text[i] != '"';
      taken = text[i] == '\\' ? std::min<size_t>(2, text.size() - i) : 1;
    } else if (text[i] == '"') {
      in_string = true;
    } else {
      for (const std::string_view word : {"NaN", "Infinity", "-Infinity"}) {
        if (text.substr(i).starts_with(word)) taken = word.size();
      }
    }
    const std::string_view piece = text.substr(i, taken);
    quoted += taken > 2 ? fmt::format("\"{}\"", piece) : std::string(piece);
    i += taken;
  }
  return quoted;
}

}  // namespace

Json ParseJson(std::string_view text, const std::string& origin) {
  Builder builder(origin);
  try {
    Json::sax_parse(text.begin(), text.end(), &builder);
  } catch (const Json::exception& error) {
    throw ConfigError(fmt::format("{}: not valid JSON: {}", origin, Reason(error)));
  }
  return builder.Take();
}

Json LoadJson(const std::filesystem::path& path) {
  const std::string text = ReadFile(path);
  if (IsLfsPointer(text)) throw IoError(fmt::format("{}: {}", path.string(), kLfsPointerReason));
  const bool suspect = text.find("NaN") != std::string::npos || text.find("Infinity") != std::string::npos;
  return ParseJson(suspect ? QuoteNonNumbers(text) : text, path.string());
}

JsonObject::JsonObject(const Json& json, std::string origin) : json_(json), origin_(std::move(origin)) {
  if (!json.is_object()) throw ConfigError(fmt::format("{}: expected a JSON object, got {}", origin_, Show(json)));
}

void JsonObject::Refuse(const char* key, const std::string& what) const {
  const auto field = json_.find(key);
  if (field == json_.end()) throw FieldError(key, fmt::format("{}: {} is missing, {}", origin_, key, what));
  throw FieldError(key, fmt::format("{}: {}: {}, got {}", origin_, key, what, Show(*field)));
}

bool JsonObject::Has(const char* key) const {
  const auto field = json_.find(key);
  return field != json_.end() && !field->is_null();
}

const Json& JsonObject::At(const char* key) const {
  if (!Has(key)) Refuse(key, "a value is needed");
  return json_.at(key);
}

JsonObject JsonObject::Object(const char* key) const {
  if (!At(key).is_object()) Refuse(key, "expected an object");
  return {json_.at(key), origin_ + ": " + key};
}

std::optional<int64_t> WholeNumber(const Json& value) {
  constexpr double kMostExact = 9007199254740992;  // 2^53
  if (value.is_number_float()) {
    const auto number = value.get<double>();
    if (!(std::abs(number) <= kMostExact) || std::trunc(number) != number) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return value.get<int64_t>();
}

int64_t JsonObject::Int(const char* key, int64_t min, int64_t max) const {
  const std::string expected = fmt::format("expected an integer from {} to {}", min, max);
  const std::optional<int64_t> value = Has(key) ? WholeNumber(json_.at(key)) : std::nullopt;
  if (!value || *value < min || *value > max) Refuse(key, expected);
  return *value;
}

int64_t JsonObject::Int(const char* key, int64_t min, int64_t max, int64_t otherwise) const {
  return Has(key) ? Int(key, min, max) : otherwise;
}

double JsonObject::Number(const char* key) const {
  if (!Has(key) || !json_.at(key).is_number()) Refuse(key, "expected a number");
  const auto value = json_.at(key).get<double>();
  if (!std::isfinite(value)) Refuse(key, "expected a finite number");
  return value;
}

double JsonObject::Number(const char* key, double otherwise) const { return Has(key) ? Number(key) : otherwise; }

bool JsonObject::Bool(const char* key, bool otherwise) const {
  if (!Has(key)) return otherwise;
  if (!json_.at(key).is_boolean()) Refuse(key, "expected true or false");
  return json_.at(key).get<bool>();
}

std::string JsonObject::String(const char* key) const {
  if (!Has(key) || !json_.at(key).is_string()) Refuse(key, "expected a string");
  return json_.at(key).get<std::string>();
}

std::string JsonObject::String(const char* key, const std::string& otherwise) const {
  return Has(key) ? String(key) : otherwise;
}

}  // namespace runahead
