#include "tokenizer/ascii_words.h"

#include <algorithm>
#include <array>

namespace runahead::tokenizer {
namespace {

enum class Kind : uint8_t { kOther, kLetter, kDigit, kSpace, kNewline, kBeyond, kNone };

constexpr std::array<Kind, 256> MakeKinds() {
  std::array<Kind, 256> kinds{};
  for (size_t byte = 0; byte < kinds.size(); ++byte) {
    const bool letter = (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
    const bool space = byte == ' ' || (byte >= '\t' && byte <= '\r');
    kinds[byte] = byte >= 0x80                   ? Kind::kBeyond
                  : letter                       ? Kind::kLetter
                  : byte >= '0' && byte <= '9'   ? Kind::kDigit
                  : byte == '\n' || byte == '\r' ? Kind::kNewline
                  : space                        ? Kind::kSpace
                                                 : Kind::kOther;
  }
  return kinds;
}

constexpr std::array<Kind, 256> kKinds = MakeKinds();

Kind KindAt(std::string_view text, uint32_t at) {
  return at < text.size() ? kKinds[static_cast<uint8_t>(text[at])] : Kind::kNone;
}

uint32_t RunEnd(std::string_view text, uint32_t at, Kind kind) {
  while (KindAt(text, at) == kind) ++at;
  return at;
}

}  // namespace

std::optional<AsciiWords> AsciiWords::Of(std::string_view pattern) {
  if (pattern == kGpt2Words) return AsciiWords(Style::kGpt2, UINT32_MAX);
  if (pattern == kLlama3Words) return AsciiWords(Style::kLlama3, 3);
  if (pattern == kQwen2Words) return AsciiWords(Style::kLlama3, 1);
  return std::nullopt;
}

// The checks stand in the order of the pattern's alternatives.
uint32_t AsciiWords::End(std::string_view text, uint32_t begin) const {
  const bool gpt2 = style_ == Style::kGpt2;
  const bool blank = text[begin] == ' ';
  const Kind first = KindAt(text, begin);
  const Kind second = KindAt(text, begin + 1);
  if (first == Kind::kBeyond) return begin;
  if (text[begin] == '\'') {
    if (const uint32_t length = ContractionLength(text, begin); length > 0) return begin + length;
  }
  const auto unless_beyond = [&](uint32_t end) { return KindAt(text, end) == Kind::kBeyond ? begin : end; };

  const bool may_lead = gpt2 ? blank : first == Kind::kOther || first == Kind::kSpace;
  if (may_lead && second == Kind::kBeyond) return begin;
  if (first == Kind::kLetter || (may_lead && second == Kind::kLetter)) {
    return unless_beyond(RunEnd(text, begin + 1, Kind::kLetter));
  }
  if (first == Kind::kDigit || (gpt2 && blank && second == Kind::kDigit)) {
    const uint32_t end = RunEnd(text.substr(0, size_t{begin} + most_digits_), begin + 1, Kind::kDigit);
    return end - begin == most_digits_ ? end : unless_beyond(end);
  }
  if (first == Kind::kOther || (blank && second == Kind::kOther)) {
    const uint32_t end = unless_beyond(RunEnd(text, begin + 1, Kind::kOther));
    return gpt2 || end == begin ? end : RunEnd(text, end, Kind::kNewline);
  }
  return SpacesEnd(text, begin);
}

uint32_t AsciiWords::ContractionLength(std::string_view text, uint32_t begin) const {
  const auto letter = [&](uint32_t at) {
    const char byte = at < text.size() ? text[at] : '\0';
    const bool upper = style_ == Style::kLlama3 && byte >= 'A' && byte <= 'Z';
    return upper ? static_cast<char>(byte + ('a' - 'A')) : byte;
  };
  const char one = letter(begin + 1);
  const char two = letter(begin + 2);
  if (one == 's' || one == 't' || one == 'm' || one == 'd') return 2;
  return ((one == 'r' || one == 'v') && two == 'e') || (one == 'l' && two == 'l') ? 3 : 0;
}

// Spaces up to the last newline among them; else all but the one that the next word may take.
uint32_t AsciiWords::SpacesEnd(std::string_view text, uint32_t begin) const {
  uint32_t end = begin;
  uint32_t behind_newline = begin;
  for (Kind kind = KindAt(text, end); kind == Kind::kSpace || kind == Kind::kNewline; kind = KindAt(text, end)) {
    ++end;
    if (kind == Kind::kNewline) behind_newline = end;
  }
  if (KindAt(text, end) == Kind::kBeyond) return begin;
  if (style_ == Style::kLlama3 && behind_newline != begin) return behind_newline;
  return end == text.size() ? end : std::max(begin + 1, end - 1);
}

}  // namespace runahead::tokenizer
