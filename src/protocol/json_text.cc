#include "protocol/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace runahead::protocol {
namespace {

template <typename T>
std::string Shortest(T value) {
  return std::isfinite(value) ? fmt::format("{}", value) : "-9999";
}

}  // namespace

std::string Quoted(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string NumberText(double value) { return Shortest(value); }
std::string NumberText(float value) { return Shortest(value); }

void AddTo(std::string& list, std::string_view part) {
  if (!list.empty()) list += ',';
  list += part;
}

int64_t Characters(std::string_view text) {
  constexpr unsigned kContinuation = 0x80;
  constexpr unsigned kMask = 0xC0;
  return std::count_if(text.begin(), text.end(),
                       [](char byte) { return (static_cast<unsigned char>(byte) & kMask) != kContinuation; });
}

}  // namespace runahead::protocol
