#include "tests/report/well_formed.h"

#include <regex>
#include <vector>

namespace runahead::report {
namespace {

std::string CheckText(const std::string& text) {
  static const std::regex entity("&(?!(amp|lt|gt|quot|#39);)");
  return std::regex_search(text, entity) ? "a bare & in: " + text : "";
}

}  // namespace

std::string WhatIsWrongWith(std::string_view xml) {
  static const std::regex form(R"re(^(/?)([a-z]+)((?: [a-zA-Z0-9:-]+="[^"<]*")*)(/?)$)re");
  std::vector<std::string> open;
  bool seen = false;
  while (true) {
    const size_t less = xml.find('<');
    const std::string text(xml.substr(0, less));
    if (std::string wrong = CheckText(text); !wrong.empty()) return wrong;
    if (open.empty() && text.find_first_not_of(" \n") != std::string::npos) return "text outside the root: " + text;
    if (less == std::string_view::npos) break;
    const size_t greater = xml.find('>', less);
    if (greater == std::string_view::npos) return "a tag without end";
    const std::string tag(xml.substr(less + 1, greater - less - 1));
    xml.remove_prefix(greater + 1);
    std::smatch parts;
    if (!std::regex_match(tag, parts, form)) return "a broken tag: " + tag;
    if (std::string wrong = CheckText(parts[3]); !wrong.empty()) return wrong;
    if (parts[1].length() > 0) {
      if (open.empty() || open.back() != parts[2]) return "closed out of order: " + tag;
      open.pop_back();
    } else {
      if (open.empty() && seen) return "a second root: " + tag;
      seen = true;
      if (parts[4].length() == 0) open.push_back(parts[2]);
    }
  }
  if (!open.empty()) return "left open: " + open.back();
  return seen ? "" : "no element";
}

int Count(std::string_view text, std::string_view needle) {
  int count = 0;
  for (size_t at = text.find(needle); at != std::string_view::npos; at = text.find(needle, at + 1)) ++count;
  return count;
}

}  // namespace runahead::report
