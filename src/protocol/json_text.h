// Parts of JSON as text, where building a document first would cost an engine's thread too much.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace runahead::protocol {

/// `text` in quotes, escaped; bytes that are not UTF-8 become U+FFFD.
std::string Quoted(std::string_view text);

/// The shortest decimal that reads back as `value`; what is not finite, which JSON does not have, becomes -9999, as
/// OpenAI has it for log-probabilities.
std::string NumberText(double value);
std::string NumberText(float value);

/// The number of characters of a text that is UTF-8.
int64_t Characters(std::string_view text);

/// Adds `part` to a list without its brackets.
void AddTo(std::string& list, std::string_view part);

}  // namespace runahead::protocol
