#include "tokenizer/unicode.h"

#include <fmt/format.h>
#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/uniset.h>
#include <unicode/unistr.h>

#include <cctype>

#include "runahead/error.h"
#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

bool HasCategory(char32_t character, uint32_t mask) {
  return (U_GET_GC_MASK(static_cast<UChar32>(character)) & mask) != 0;
}

bool IsAscii(std::string_view text) {
  for (const char byte : text) {
    if (static_cast<uint8_t>(byte) >= 0x80) return false;
  }
  return true;
}

// The characters of Unicode 9: the tables of the tokenizers library. Later ones count as neither composed nor
// combining.
const icu::UnicodeSet& NormalizedCharacters() {
  static const icu::UnicodeSet characters = [] {
    UErrorCode error = U_ZERO_ERROR;
    icu::UnicodeSet known(icu::UnicodeString("[:age=9.0:]"), error);
    if (U_FAILURE(error)) throw Error(fmt::format("ICU has no character ages: {}", u_errorName(error)));
    known.freeze();
    return known;
  }();
  return characters;
}

icu::FilteredNormalizer2 NormalizerOf(NormalForm form) {
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = nullptr;
  switch (form) {
    case NormalForm::kNfc:
      normalizer = icu::Normalizer2::getNFCInstance(error);
      break;
    case NormalForm::kNfd:
      normalizer = icu::Normalizer2::getNFDInstance(error);
      break;
    case NormalForm::kNfkc:
      normalizer = icu::Normalizer2::getNFKCInstance(error);
      break;
    case NormalForm::kNfkd:
      normalizer = icu::Normalizer2::getNFKDInstance(error);
      break;
  }
  if (U_FAILURE(error)) throw Error(fmt::format("ICU has no normalization data: {}", u_errorName(error)));
  return {*normalizer, NormalizedCharacters()};
}

}  // namespace

bool IsSpace(char32_t character) { return u_isUWhiteSpace(static_cast<UChar32>(character)) != 0; }

bool IsNumeric(char32_t character) {
  if (character < 0x80) return character >= '0' && character <= '9';
  return HasCategory(character, U_GC_N_MASK);
}

bool IsWord(char32_t character) {
  if (character < 0x80) return std::isalnum(static_cast<int>(character)) != 0 || character == '_';
  const auto c = static_cast<UChar32>(character);
  return u_isUAlphabetic(c) != 0 || HasCategory(character, U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK) ||
         u_hasBinaryProperty(c, UCHAR_JOIN_CONTROL) != 0;
}

bool IsPunctuation(char32_t character) {
  if (character < 0x80) return std::ispunct(static_cast<int>(character)) != 0;
  if (character == 0x166D || character == 0x111C9) return true;  // recategorized after Unicode 8
  if (!HasCategory(character, U_GC_P_MASK)) return false;
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(character), age);
  return age[0] <= 8;
}

std::string Lowercase(std::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  for (size_t at = 0; at < text.size(); at += Utf8Length(text[at])) {
    const char32_t character = Utf8At(text.data() + at);
    if (character == 0x130) {
      lower += "i\u0307";  // the only character whose lower case is two
    } else {
      AppendUtf8(static_cast<char32_t>(u_tolower(static_cast<UChar32>(character))), lower);
    }
  }
  return lower;
}

std::string Normalize(NormalForm form, std::string text) {
  if (IsAscii(text)) return text;
  std::string normal;
  normal.reserve(text.size());
  icu::StringByteSink<std::string> sink(&normal);
  UErrorCode error = U_ZERO_ERROR;
  NormalizerOf(form).normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink, nullptr,
                                   error);
  if (U_FAILURE(error)) throw Error(fmt::format("ICU cannot normalize a text: {}", u_errorName(error)));
  return normal;
}

}  // namespace runahead::tokenizer
