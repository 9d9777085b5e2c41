#include "tokenizer/vocab.h"

#include <fmt/format.h>

#include "base/check.h"
#include "runahead/error.h"

namespace runahead::tokenizer {

int32_t LoadTokenId(const Json& value, const std::string& origin) {
  const bool fits = value.is_number_integer() && value >= 0 && value <= kMaxTokenId;
  if (!fits) {
    const std::string shown = value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 80);
    throw ConfigError(fmt::format("{}: expected an id from 0 to {}, got {}", origin, kMaxTokenId, shown));
  }
  return value.get<int32_t>();
}

Vocab Vocab::Load(const JsonObject& model, const char* key) {
  const JsonObject tokens = model.Object(key);
  Vocab vocab;
  vocab.ids_.reserve(tokens.json().size());
  for (const auto& [token, value] : tokens.json().items()) {
    const int32_t id = LoadTokenId(value, fmt::format("{}: {}", tokens.origin(), token));
    if (const std::string* other = vocab.TokenOf(id)) {
      throw ConfigError(fmt::format("{}: tokens \"{}\" and \"{}\" have the same id {}", tokens.origin(), *other, token,
                                    id));
    }
    vocab.Add(token, id);
  }
  return vocab;
}

void Vocab::Add(std::string token, int32_t id) {
  CHECK(id >= 0 && id <= kMaxTokenId);
  if (id >= end_id()) tokens_.resize(static_cast<size_t>(id) + 1, nullptr);
  const auto [entry, added] = ids_.emplace(std::move(token), id);
  CHECK(added && tokens_[static_cast<size_t>(id)] == nullptr);
  tokens_[static_cast<size_t>(id)] = &entry->first;
}

}  // namespace runahead::tokenizer
