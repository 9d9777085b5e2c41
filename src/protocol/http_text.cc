#include "protocol/http_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>

#include "protocol/api_error.h"
#include "protocol/http_status.h"

namespace runahead::protocol {

namespace {

/// %XX becomes what it stands for.
std::string Decoded(std::string_view text) {
  constexpr int kHex = 16;
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned char byte = 0;
    const std::string_view digits = text.substr(i + 1, 2);
    const char* const last = digits.data() + digits.size();
    const bool escape =
        text[i] == '%' && digits.size() == 2 && std::from_chars(digits.data(), last, byte, kHex).ptr == last;
    decoded += escape ? static_cast<char>(byte) : text[i];
    if (escape) i += 2;
  }
  return decoded;
}

}  // namespace

std::string PathOf(std::string_view target) { return Decoded(target.substr(0, target.find('?'))); }

std::string QueryOf(std::string_view target, std::string_view name) {
  const size_t begin = target.find('?');
  std::string_view rest = begin == std::string_view::npos ? "" : target.substr(begin + 1);
  while (!rest.empty()) {
    const std::string_view field = rest.substr(0, rest.find('&'));
    if (field.size() > name.size() && field.starts_with(name) && field[name.size()] == '=') {
      return Decoded(field.substr(name.size() + 1));
    }
    rest.remove_prefix(std::min(rest.size(), field.size() + 1));
  }
  return {};
}

void CheckMediaType(const HttpRequest& request) {
  std::string_view type = request.Field("content-type");
  type = type.substr(0, type.find(';'));
  while (type.ends_with(' ')) type.remove_suffix(1);
  if (type.empty()) return;
  std::string lower(type);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char sign) { return sign >= 'A' && sign <= 'Z' ? static_cast<char>(sign - 'A' + 'a') : sign; });
  if (lower == "application/json" || lower.ends_with("+json")) return;
  throw ApiError(kUnsupportedMediaType, fmt::format("content-type: expected application/json, got '{}'", type),
                 "unsupported_media_type", "content-type");
}

int64_t UnixSeconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

}  // namespace runahead::protocol
