// What the loaders of tokenizer.json's components share.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"

namespace runahead::tokenizer {

/// The elements of the array `key`, each an object named "<origin>: <key>[i]". Throws ConfigError for anything else.
std::vector<JsonObject> ObjectArray(const JsonObject& object, const char* key);

/// The string `key`, which must be exactly one character. Throws ConfigError.
char32_t Character(const JsonObject& object, const char* key);

/// Throws ConfigError: this kind of component is not implemented.
[[noreturn]] void RefuseType(const JsonObject& component, const char* kind);

}  // namespace runahead::tokenizer
