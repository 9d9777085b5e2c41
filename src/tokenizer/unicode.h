// The character classes and mappings that tokenizers use, from ICU.
#pragma once

#include <string>
#include <string_view>

namespace runahead::tokenizer {

bool IsSpace(char32_t character);    // Unicode White_Space
bool IsNumeric(char32_t character);  // general categories Nd, Nl, No
bool IsWord(char32_t character);     // Unicode \w: letters, marks, digits, connectors, joiners

/// ASCII punctuation and symbols, and what Unicode 8 calls punctuation: the tables of the tokenizers library that
/// tokenizer.json files are written for.
bool IsPunctuation(char32_t character);

/// Character by character, without looking at the context (no final sigma).
std::string Lowercase(std::string_view text);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

/// `text` in a Unicode normalization form.
std::string Normalize(NormalForm form, std::string text);

}  // namespace runahead::tokenizer
