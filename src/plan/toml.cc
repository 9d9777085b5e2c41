#include "plan/toml.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cctype>

#include "runahead/error.h"

namespace runahead {
namespace {

constexpr int kMaxDepth = 64;  // as of JSON

[[noreturn]] void RefuseDepth(const std::string& origin, size_t line) {
  throw ConfigError(fmt::format("{}: line {}: TOML is nested deeper than {} levels", origin, line, kMaxDepth));
}

Json ToJson(const toml::node& node, const std::string& origin, int depth) {
  if (depth > kMaxDepth) RefuseDepth(origin, node.source().begin.line);
  if (const toml::table* table = node.as_table()) {
    Json object = Json::object();
    for (const auto& [key, value] : *table) object[std::string(key.str())] = ToJson(value, origin, depth + 1);
    return object;
  }
  if (const toml::array* array = node.as_array()) {
    Json list = Json::array();
    for (const toml::node& value : *array) list.push_back(ToJson(value, origin, depth + 1));
    return list;
  }
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* integer = node.as_integer()) return integer->get();
  if (const auto* number = node.as_floating_point()) return number->get();
  if (const auto* boolean = node.as_boolean()) return boolean->get();
  throw ConfigError(fmt::format("{}: line {}: dates and times are not used here", origin, node.source().begin.line));
}

/// Dotted keys nest a table in each other, and the parser has no bound of its own for them: text of keys alone with
/// more dots than kMaxDepth is refused before it.
void CheckDottedKeys(std::string_view text, const std::string& origin) {
  size_t line = 1;
  int dots = 0;
  for (const char c : text) {
    const bool of_key = std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                        std::string_view("_-\"' \t").find(c) != std::string_view::npos;
    if (c == '.') {
      if (++dots > kMaxDepth) RefuseDepth(origin, line);
    } else if (!of_key) {
      dots = 0;
    }
    line += c == '\n' ? 1 : 0;
  }
}

/// The text of a line, counted from 1, as far as it fits into an error.
std::string LineOf(std::string_view text, size_t line) {
  constexpr size_t kMostShown = 60;
  for (; line > 1; --line) text.remove_prefix(std::min(text.size(), text.find('\n') + 1));
  return std::string(text.substr(0, std::min(text.find_first_of("\r\n"), kMostShown)));
}

}  // namespace

Json ParseToml(std::string_view text, const std::string& origin) {
  CheckDottedKeys(text, origin);
  try {
    return ToJson(toml::parse(text, origin), origin, 0);
  } catch (const toml::parse_error& error) {
    const size_t line = error.source().begin.line;
    throw ConfigError(fmt::format("{}: line {}: not valid TOML: {}, in '{}'", origin, line, error.description(),
                                  LineOf(text, line)));
  }
}

}  // namespace runahead
