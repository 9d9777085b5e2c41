#include "plan/toml.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include "runahead/error.h"

namespace runahead {
namespace {

Json ToJson(const toml::node& node, const std::string& origin) {
  if (const toml::table* table = node.as_table()) {
    Json object = Json::object();
    for (const auto& [key, value] : *table) object[std::string(key.str())] = ToJson(value, origin);
    return object;
  }
  if (const toml::array* array = node.as_array()) {
    Json list = Json::array();
    for (const toml::node& value : *array) list.push_back(ToJson(value, origin));
    return list;
  }
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* integer = node.as_integer()) return integer->get();
  if (const auto* number = node.as_floating_point()) return number->get();
  if (const auto* boolean = node.as_boolean()) return boolean->get();
  throw ConfigError(fmt::format("{}: line {}: dates and times are not used here", origin, node.source().begin.line));
}

}  // namespace

Json ParseToml(std::string_view text, const std::string& origin) {
  try {
    return ToJson(toml::parse(text, origin), origin);
  } catch (const toml::parse_error& error) {
    throw ConfigError(
        fmt::format("{}: line {}: not valid TOML: {}", origin, error.source().begin.line, error.description()));
  }
}

}  // namespace runahead
