#include "tokenizer/pattern.h"

#include <algorithm>

namespace runahead::tokenizer {
namespace {

std::variant<std::string, Regex> LoadPattern(const JsonObject& component, const char* key) {
  if (component.At(key).is_string()) return component.String(key);
  const JsonObject pattern = component.Object(key);
  if (pattern.Has("String")) return pattern.String("String");
  if (pattern.Has("Regex")) return Regex(pattern.String("Regex"), pattern.origin() + ": Regex");
  component.Refuse(key, "expected {\"String\": ...} or {\"Regex\": ...}");
}

}  // namespace

Pattern::Pattern(const JsonObject& component, const char* key) : pattern_(LoadPattern(component, key)) {}

void Pattern::FindAll(std::string_view text, std::vector<Range>& matches) const {
  if (const auto* regex = std::get_if<Regex>(&pattern_)) return regex->FindAll(text, matches);
  const auto& wanted = std::get<std::string>(pattern_);
  if (wanted.empty()) return;
  for (size_t at = text.find(wanted); at != std::string_view::npos; at = text.find(wanted, at + wanted.size())) {
    matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + wanted.size())});
  }
}

std::string Pattern::ReplaceAll(std::string_view text, std::string_view content) const {
  std::vector<Range> matches;
  FindAll(text, matches);
  std::string replaced;
  replaced.reserve(text.size() + matches.size() * content.size());
  size_t done = 0;
  for (const Range& match : matches) {
    replaced += text.substr(done, match.begin - done);
    replaced += content;
    done = match.end;
  }
  replaced += text.substr(done);
  return replaced;
}

double Pattern::Growth(std::string_view content) const {
  const auto length = static_cast<double>(content.size());
  const auto* wanted = std::get_if<std::string>(&pattern_);
  if (wanted == nullptr) return 1 + length;  // a regular expression may match nothing between any two bytes
  return wanted->empty() ? 1 : std::max(1.0, length / static_cast<double>(wanted->size()));
}

}  // namespace runahead::tokenizer
