#include "protocol/http_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>

#include "protocol/api_error.h"
#include "protocol/random_id.h"

namespace runahead::protocol {

std::string PathOf(std::string_view target) {
  constexpr int kHex = 16;
  target = target.substr(0, target.find('?'));
  std::string path;
  for (size_t i = 0; i < target.size(); ++i) {
    unsigned char byte = 0;
    const std::string_view digits = target.substr(i, 3).substr(std::min<size_t>(1, target.size() - i));
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), byte, kHex);
    const bool escaped = target[i] == '%' && digits.size() == 2 && end == digits.data() + 2 && error == std::errc();
    path += escaped ? static_cast<char>(byte) : target[i];
    if (escaped) i += 2;
  }
  return path;
}

std::string RequestIdOf(const HttpRequest& request) {
  constexpr size_t kLongest = 128;
  const std::string_view id = request.Field("x-request-id");
  const bool usable = !id.empty() && id.size() <= kLongest &&
                      std::all_of(id.begin(), id.end(), [](char sign) { return sign > ' ' && sign <= '~'; });
  return usable ? std::string(id) : RandomId("req-");
}

void CheckMediaType(const HttpRequest& request) {
  constexpr int kUnsupported = 415;
  std::string_view type = request.Field("content-type");
  type = type.substr(0, type.find(';'));
  while (type.ends_with(' ')) type.remove_suffix(1);
  if (type.empty()) return;
  std::string lower(type);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char sign) { return sign >= 'A' && sign <= 'Z' ? static_cast<char>(sign - 'A' + 'a') : sign; });
  if (lower == "application/json" || lower.ends_with("+json")) return;
  throw ApiError(kUnsupported, fmt::format("content-type: expected application/json, got '{}'", type),
                 "unsupported_media_type", "content-type");
}

int64_t UnixSeconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

}  // namespace runahead::protocol
