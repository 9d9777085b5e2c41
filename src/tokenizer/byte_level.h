// The byte-level alphabet: every byte has a printable character of its own.
#pragma once

#include <cstdint>
#include <string_view>

namespace runahead::tokenizer {

/// Printable Latin-1 bytes stand for themselves; the others, in order, are U+0100 and up (GPT-2's table).
/// Writes the character of every byte of `text`, as UTF-8, and returns the end of what it wrote. `out` has room for
/// twice the bytes of `text`.
char* WriteByteLevel(std::string_view text, char* out);

/// The byte that `character` stands for, or -1.
int ByteOfCharacter(char32_t character);

}  // namespace runahead::tokenizer
