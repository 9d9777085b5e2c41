#include "tokenizer/component.h"

#include <fmt/format.h>

#include "tokenizer/utf8.h"

namespace runahead::tokenizer {

std::vector<JsonObject> ObjectArray(const JsonObject& object, const char* key) {
  const Json& array = object.At(key);
  if (!array.is_array()) object.Refuse(key, "expected an array");
  std::vector<JsonObject> objects;
  objects.reserve(array.size());
  for (size_t i = 0; i < array.size(); ++i) {
    objects.emplace_back(array[i], fmt::format("{}: {}[{}]", object.origin(), key, i));
  }
  return objects;
}

char32_t Character(const JsonObject& object, const char* key) {
  const std::string text = object.String(key);
  if (text.empty() || Utf8Length(text[0]) != text.size()) object.Refuse(key, "expected one character");
  return Utf8At(text.data());
}

void RefuseType(const JsonObject& component, const char* kind) {
  component.Refuse("type", fmt::format("this kind of {} is not implemented", kind));
}

}  // namespace runahead::tokenizer
