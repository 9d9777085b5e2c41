#include "tokenizer/charsmap.h"

#include <fmt/format.h>

#include <algorithm>

#include "runahead/error.h"
#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

constexpr size_t kUnitBytes = 4;

uint32_t ReadUnit(std::string_view bytes, size_t at) {
  uint32_t unit = 0;
  for (size_t i = 0; i < kUnitBytes; ++i) unit |= uint32_t{static_cast<uint8_t>(bytes[at + i])} << (8 * i);
  return unit;
}

// What a unit of the double array holds. A unit with its top bit set holds a value; no label equals it.
bool HasValue(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t ValueOf(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t LabelOf(uint32_t unit) { return unit & 0x800000FF; }
uint32_t OffsetOf(uint32_t unit) { return (unit >> 10) << ((unit & 0x200) >> 6); }

}  // namespace

Charsmap::Charsmap(std::string_view blob, const std::string& origin) {
  if (blob.empty()) return;
  const size_t array_bytes = blob.size() < kUnitBytes ? 0 : ReadUnit(blob, 0);
  if (array_bytes == 0 || array_bytes % kUnitBytes != 0 || array_bytes > blob.size() - kUnitBytes) {
    throw ConfigError(fmt::format("{}: precompiled_charsmap: an array of {} bytes does not fit into {}", origin,
                                  array_bytes, blob.size()));
  }
  units_.reserve(array_bytes / kUnitBytes);
  for (size_t at = kUnitBytes; at < kUnitBytes + array_bytes; at += kUnitBytes) units_.push_back(ReadUnit(blob, at));
  replacements_ = blob.substr(kUnitBytes + array_bytes);
  CheckUtf8(replacements_, origin + ": precompiled_charsmap: replacements");
  replacements_ += '\0';
  for (size_t begin = 0; begin < replacements_.size();) {
    const size_t end = replacements_.find('\0', begin);
    longest_ = std::max(longest_, end - begin);
    begin = end + 1;
  }
}

Charsmap::Match Charsmap::LongestPrefix(std::string_view text) const {
  Match match;
  if (units_.empty()) return match;
  uint32_t node = OffsetOf(units_[0]);
  for (size_t at = 0; at < text.size(); ++at) {
    const auto byte = static_cast<uint8_t>(text[at]);
    node ^= byte;
    if (node >= units_.size() || LabelOf(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= OffsetOf(unit);
    if (!HasValue(unit) || node >= units_.size()) continue;
    const size_t begin = ValueOf(units_[node]);
    if (begin >= replacements_.size()) continue;
    // A rule for a part of a character, or from its middle on, would leave no UTF-8.
    const bool whole = at + 1 == text.size() || (static_cast<uint8_t>(text[at + 1]) & 0xC0) != 0x80;
    const bool starts = (static_cast<uint8_t>(replacements_[begin]) & 0xC0) != 0x80;
    if (whole && starts) match = {at + 1, replacements_.data() + begin};
  }
  return match;
}

}  // namespace runahead::tokenizer
