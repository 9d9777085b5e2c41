#include "tokenizer/post_processor.h"

#include <fmt/format.h>

#include "tokenizer/component.h"
#include "tokenizer/vocab.h"

namespace runahead::tokenizer {
namespace {

// A text may stand twice in a template, and templates in each other: this bounds what a file can blow up.
constexpr size_t kMaxItems = 1024;

Template LoadTemplate(const JsonObject& component) {
  const JsonObject special_tokens = component.Object("special_tokens");
  std::vector<int32_t> items;
  for (const JsonObject& item : ObjectArray(component, "single")) {
    if (item.Has("Sequence")) {
      const JsonObject sequence = item.Object("Sequence");
      if (sequence.String("id") != "A") sequence.Refuse("id", "a single text is \"A\"");
      items.push_back(Template::kText);
      continue;
    }
    const std::string name = item.Object("SpecialToken").String("id");
    const JsonObject token = special_tokens.Object(name.c_str());
    const Json& ids = token.At("ids");
    if (!ids.is_array()) token.Refuse("ids", "expected an array");
    for (const Json& id : ids) items.push_back(LoadTokenId(id, token.origin() + ": ids"));
  }
  return Template(std::move(items));
}

// ["token", id]
int32_t LoadNamedId(const JsonObject& component, const char* key) {
  const Json& pair = component.At(key);
  if (!pair.is_array() || pair.size() != 2) component.Refuse(key, "expected [token, id]");
  return LoadTokenId(pair[1], fmt::format("{}: {}", component.origin(), key));
}

Template MakeTemplate(const JsonObject& component) {
  const std::string type = component.String("type");
  if (type == "TemplateProcessing") return LoadTemplate(component);
  if (type == "ByteLevel") return {};  // moves offsets only
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    return Template({LoadNamedId(component, "cls"), Template::kText, LoadNamedId(component, "sep")});
  }
  if (type != "Sequence") RefuseType(component, "post-processor");
  Template all;
  for (const JsonObject& part : ObjectArray(component, "processors")) {
    all = MakeTemplate(part).Around(all);
    if (all.items().size() > kMaxItems) component.Refuse("type", fmt::format("more than {} special ids", kMaxItems));
  }
  return all;
}

}  // namespace

std::vector<int32_t> Template::Fill(std::vector<int32_t> text) const {
  if (items_.size() == 1 && items_[0] == kText) return text;
  std::vector<int32_t> filled;
  filled.reserve(items_.size() + text.size());
  for (const int32_t item : items_) {
    if (item == kText) {
      filled.insert(filled.end(), text.begin(), text.end());
    } else {
      filled.push_back(item);
    }
  }
  return filled;
}

Template LoadPostProcessor(const JsonObject& file, const char* key) {
  return file.Has(key) ? MakeTemplate(file.Object(key)) : Template();
}

}  // namespace runahead::tokenizer
