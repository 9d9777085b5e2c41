// A strict little reader of XML, for tests.
#pragma once

#include <string>
#include <string_view>

namespace runahead::report {

/// Empty when `xml` is one element with properly nested, closed and quoted content; otherwise what is wrong with it.
std::string WhatIsWrongWith(std::string_view xml);

/// How often `needle` stands in `text`.
int Count(std::string_view text, std::string_view needle);

}  // namespace runahead::report
