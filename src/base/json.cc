#include "base/json.h"

#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <set>
#include <sstream>
#include <vector>

#include "base/file.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxShownValue = 80;

std::string Shorten(std::string text) {
  if (text.size() > kMaxShownValue) text = text.substr(0, kMaxShownValue) + "...";
  return text;
}

std::string Show(const Json& value) { return Shorten(value.dump(-1, ' ', false, Json::error_handler_t::replace)); }

}  // namespace

Json ParseJson(std::string_view text, const std::string& origin) {
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const Json::parser_callback_t guard = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth)
      throw ConfigError(fmt::format("{}: JSON is nested deeper than {} levels", origin, kMaxDepth));
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
      throw ConfigError(fmt::format("{}: key {} appears twice in one object", origin, Show(parsed)));
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), guard);
  } catch (const Json::exception& error) {
    throw ConfigError(fmt::format("{}: not valid JSON: {}", origin, Shorten(error.what())));
  }
}

Json LoadJson(const std::filesystem::path& path) { return ParseJson(ReadFile(path), path.string()); }

JsonObject::JsonObject(const Json& json, std::string origin) : json_(json), origin_(std::move(origin)) {
  if (!json.is_object()) throw ConfigError(fmt::format("{}: expected a JSON object, got {}", origin_, Show(json)));
}

void JsonObject::Refuse(const char* key, const std::string& what) const {
  const auto field = json_.find(key);
  if (field == json_.end()) throw ConfigError(fmt::format("{}: {} is missing, {}", origin_, key, what));
  throw ConfigError(fmt::format("{}: {}: {}, got {}", origin_, key, what, Show(*field)));
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

int64_t JsonObject::Int(const char* key, int64_t min, int64_t max) const {
  const std::string expected = fmt::format("expected an integer from {} to {}", min, max);
  if (!Has(key) || !json_.at(key).is_number_integer()) Refuse(key, expected);
  const Json& field = json_.at(key);
  if (field.is_number_unsigned() && field.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) Refuse(key, expected);
  const auto value = field.get<int64_t>();
  if (value < min || value > max) Refuse(key, expected);
  return value;
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
