#include "tokenizer/vocab.h"

#include <fmt/format.h>

#include <bit>

#include "runahead/error.h"
#include "tokenizer/hash.h"

namespace runahead::tokenizer {
namespace {

constexpr size_t kMaxTokenBytes = size_t{1} << 30;

}  // namespace

int32_t LoadTokenId(const Json& value, const std::string& origin) {
  const bool fits = value.is_number_integer() && value >= 0 && value <= kMaxTokenId;
  if (!fits) {
    const std::string shown = value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 80);
    throw ConfigError(fmt::format("{}: expected an id from 0 to {}, got {}", origin, kMaxTokenId, shown));
  }
  return value.get<int32_t>();
}

Vocab::Vocab(size_t tokens) : slots_(std::bit_ceil(tokens * 2 + 2)) {}

Vocab Vocab::Load(const JsonObject& model, const char* key) {
  const JsonObject tokens = model.Object(key);
  Vocab vocab(tokens.json().size());
  for (const auto& [token, value] : tokens.json().get_ref<const Json::object_t&>()) {
    const bool fits = value.is_number_unsigned() && value.get<uint64_t>() <= static_cast<uint64_t>(kMaxTokenId);
    if (!fits)
      LoadTokenId(value, fmt::format("{}: {}", tokens.origin(), token));  // throws, or takes another number type
    vocab.Add(token, value.get<int32_t>(), tokens.origin());
  }
  return vocab;
}

Vocab Vocab::FromPieces(const std::vector<Piece>& pieces, const std::string& origin) {
  Vocab vocab(pieces.size());
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (const int32_t other = vocab.Find(pieces[id].text); other != kNoToken) {
      throw ConfigError(
          fmt::format("{}: pieces {} and {} are both \"{}\"", origin, other, id, pieces[id].text.substr(0, 80)));
    }
    vocab.Add(pieces[id].text, static_cast<int32_t>(id), origin);
  }
  return vocab;
}

void Vocab::Add(std::string_view token, int32_t id, const std::string& origin) {
  if (text_.size() + token.size() > kMaxTokenBytes) {
    throw ConfigError(fmt::format("{}: the tokens are longer than {} bytes together", origin, kMaxTokenBytes));
  }
  if (const auto other = TokenOf(id)) {
    throw ConfigError(fmt::format("{}: tokens \"{}\" and \"{}\" have the same id {}", origin, *other, token, id));
  }
  if (id >= end_id()) tokens_.resize(static_cast<size_t>(id) + 1);
  tokens_[static_cast<size_t>(id)] = {static_cast<uint32_t>(text_.size()), 1, static_cast<uint32_t>(token.size())};
  text_ += token;
  const uint64_t hash = HashBytes(token);
  size_t at = hash & (slots_.size() - 1);
  while (slots_[at].id != kNoToken) at = (at + 1) & (slots_.size() - 1);
  slots_[at] = {static_cast<uint32_t>(hash >> 32), id};
  ++size_;
}

int32_t Vocab::Find(std::string_view token) const {
  const uint64_t hash = HashBytes(token);
  for (size_t at = hash & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
    const Slot& slot = slots_[at];
    if (slot.id == kNoToken) return kNoToken;
    if (slot.hash == static_cast<uint32_t>(hash >> 32) && TextOf(slot.id) == token) return slot.id;
  }
}

}  // namespace runahead::tokenizer
