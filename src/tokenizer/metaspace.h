// The settings of Metaspace, which pre-tokenizer and decoder share: spaces written as a visible character.
#pragma once

#include <string>

#include "base/json.h"

namespace runahead::tokenizer {

/// Where a text that does not start with a space gets one.
enum class PrependScheme { kAlways, kFirst, kNever };

struct Metaspace {
  std::string replacement;  // one character, as UTF-8
  PrependScheme prepend;
};

/// Throws ConfigError. Older files say `add_prefix_space` instead of `prepend_scheme`.
Metaspace LoadMetaspace(const JsonObject& component);

}  // namespace runahead::tokenizer
