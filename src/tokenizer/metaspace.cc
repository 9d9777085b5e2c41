#include "tokenizer/metaspace.h"

#include "tokenizer/component.h"
#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

PrependScheme LoadScheme(const JsonObject& component) {
  const bool prefix = component.Bool("add_prefix_space", true);
  const std::string name = component.String("prepend_scheme", prefix ? "always" : "never");
  if (!prefix && name != "never") {
    component.Refuse("prepend_scheme", "add_prefix_space is false, so it can only be \"never\"");
  }
  if (name == "always") return PrependScheme::kAlways;
  if (name == "first") return PrependScheme::kFirst;
  if (name == "never") return PrependScheme::kNever;
  component.Refuse("prepend_scheme", "expected \"always\", \"first\" or \"never\"");
}

}  // namespace

Metaspace LoadMetaspace(const JsonObject& component) {
  Metaspace metaspace{"", LoadScheme(component)};
  AppendUtf8(Character(component, "replacement"), metaspace.replacement);
  return metaspace;
}

}  // namespace runahead::tokenizer
