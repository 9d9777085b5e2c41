#include "tests/mutation/mutate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>

namespace runahead::mutation {
namespace {

constexpr std::array<std::string_view, 30> kTokens = {"{",
                                                      "}",
                                                      "[",
                                                      "]",
                                                      "\"",
                                                      ":",
                                                      ",",
                                                      "=",
                                                      ".",
                                                      "\n",
                                                      "null",
                                                      "true",
                                                      "-1",
                                                      "0",
                                                      "1e999",
                                                      "1e-400",
                                                      "0x10",
                                                      "inf",
                                                      "nan",
                                                      "18446744073709551616",
                                                      "\\u0000",
                                                      "\\ud800",
                                                      "\xff",
                                                      "\xef\xbb\xbf",
                                                      "[[",
                                                      "]]",
                                                      "\"\"\"",
                                                      "#",
                                                      "9223372036854775807",
                                                      "-0.0"};

/// `depth` lists in each other.
Json Nested(int depth) {
  Json value = Json::array();
  for (int i = 1; i < depth; ++i) value = Json::array({std::move(value)});
  return value;
}

}  // namespace

Json Mutator::OddValue() {
  constexpr double kLargest = std::numeric_limits<double>::max();
  const std::array<Json, 26> odd = {Json(nullptr),
                                    Json(true),
                                    Json(false),
                                    Json(-1),
                                    Json(0),
                                    Json(1),
                                    Json(2),
                                    Json(3),
                                    Json(INT32_MAX),
                                    Json(int64_t{1} << 32),
                                    Json(int64_t{1} << 40),
                                    Json(INT64_MAX),
                                    Json(INT64_MIN),
                                    Json(UINT64_MAX),
                                    Json(0.5),
                                    Json(-0.0),
                                    Json(1e-300),
                                    Json(kLargest),
                                    Json(-kLargest),
                                    Json(""),
                                    Json("a"),
                                    Json(std::string(1, '\0')),
                                    Json(std::string(5000, 'x')),
                                    Json::array(),
                                    Json::object(),
                                    Nested(1 + static_cast<int>(Below(80)))};
  if (Below(20) == 0) return Json(std::vector<int64_t>(Below(3000), static_cast<int64_t>(Below(10))));
  return odd[Below(odd.size())];
}

void Mutator::Change(Json& node, std::vector<std::string>& fields) {
  // Down to a random member, the deeper the likelier.
  if (node.is_structured() && !node.empty() && Below(8) != 0) {
    auto member = node.begin();
    std::advance(member, static_cast<std::ptrdiff_t>(Below(node.size())));
    if (node.is_object()) fields.push_back(member.key());
    Json& value = *member;
    const bool leaf = !value.is_structured() || value.empty();
    switch (Below(leaf ? 6 : 25)) {
      case 0:  // removed
        node.erase(member);
        return;
      case 1: {  // renamed
        if (!node.is_object()) break;
        const std::string renamed = member.key() + "x";
        Json moved = std::move(value);
        node.erase(member);
        node[renamed] = std::move(moved);
        return;
      }
      case 2:  // a number a little off
        if (value.is_number_integer()) {
          value = value.get<int64_t>() + (Below(2) == 0 ? 1 : -1);
          return;
        }
        if (value.is_number()) {
          value = value.get<double>() * (Below(2) == 0 ? -1 : 1e12);
          return;
        }
        break;
      case 3:  // in a list
        value = Json::array({value});
        return;
      case 4: {  // what another member has
        auto other = node.begin();
        std::advance(other, static_cast<std::ptrdiff_t>(Below(node.size())));
        value = Json(*other);
        return;
      }
      default:
        if (!leaf) {
          Change(value, fields);
          return;
        }
    }
    value = OddValue();
    return;
  }
  node = OddValue();
}

Mutant Mutator::OfJson(const Json& sample) {
  constexpr size_t kBytesInstead = 4;  // of so many mutants, one
  if (Below(kBytesInstead) == 0) return {OfBytes(sample.dump(1)), {}};
  Json changed = sample;
  Mutant mutant;
  Change(changed, mutant.fields);
  mutant.text = changed.dump(-1, ' ', false, Json::error_handler_t::replace);
  return mutant;
}

std::string Mutator::OfBytes(std::string text) {
  for (size_t changes = 1 + Below(4); changes > 0; --changes) {
    const size_t at = Below(text.size() + 1);
    const size_t length = std::min(text.size() - at, 1 + Below(Below(4) == 0 ? 400 : 8));
    switch (Below(7)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << Below(8)));
        break;
      case 1:
        text.insert(at, 1, static_cast<char>(Below(256)));
        break;
      case 2:
        text.erase(at, length);
        break;
      case 3:
        text.insert(at, text.substr(at, length));
        break;
      case 4:
        if (Below(4) == 0) text.resize(at);
        break;
      default:
        text.insert(at, kTokens[Below(kTokens.size())]);
    }
  }
  return text;
}

std::string Mutator::OfToml(const std::string& text) {
  if (Below(2) == 0) return OfBytes(text);
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  std::string& line = lines[Below(lines.size())];
  const size_t equals = line.find('=');
  switch (Below(equals == std::string::npos ? 3 : 8)) {
    case 0:
      line.clear();
      break;
    case 1:
      line += "\n" + line;
      break;
    case 2:
      std::swap(line, lines[Below(lines.size())]);
      break;
    default:
      line = line.substr(0, equals + 1) + " " + OddValue().dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  std::string joined;
  for (const std::string& each : lines) joined += each + "\n";
  return joined;
}

}  // namespace runahead::mutation
