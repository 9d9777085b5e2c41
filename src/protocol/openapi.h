// The description of the API in OpenAPI's form: openapi.json.
#pragma once

#include <cstdint>
#include <string>

namespace runahead::protocol {

/// The file's text.
const char* OpenApiText();

/// The description with the name of one model and its vocabulary: which names and ids are taken.
std::string OpenApiOf(const std::string& model, int64_t vocab);

/// An ECMA regular expression for the decimal numbers from 0 to `last`, leading zeros allowed up to its length.
std::string NumbersUpTo(int64_t last);

}  // namespace runahead::protocol
