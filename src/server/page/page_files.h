// The files of this folder that a browser gets.
#pragma once

#include <span>
#include <string_view>

namespace runahead::server {

struct NamedText {
  std::string_view name;  // "index.html"
  std::string_view text;
};

std::span<const NamedText> PageFiles();

/// "sample.json": {"name", "text", "questions": [...]}, a harbour's log book of about 6,000 tokens.
std::string_view SampleDocument();

}  // namespace runahead::server
