// Reads the BPE model of a tokenizer.json.
#include <fmt/format.h>

#include <algorithm>

#include "runahead/error.h"
#include "tokenizer/bpe.h"
#include "tokenizer/utf8.h"

namespace runahead::tokenizer {
namespace {

constexpr size_t kMaxMerges = size_t{1} << 24;

char32_t FirstCharacter(std::string_view text) { return Utf8At(text.data()); }
char32_t LastCharacter(std::string_view text) { return Utf8At(text.data() + PreviousCharacter(text, text.size())); }

void RefuseUnlessEmpty(const JsonObject& model, const char* key) {
  if (!model.String(key, "").empty()) model.Refuse(key, "not implemented");
}

}  // namespace

Bpe::Bpe(const JsonObject& model)
    : vocab_(Vocab::Load(model, "vocab")),
      origin_(model.origin()),
      ignore_merges_(model.Bool("ignore_merges", false)),
      byte_fallback_(model.Bool("byte_fallback", false)),
      fuse_unknown_(model.Bool("fuse_unk", false)) {
  if (model.Number("dropout", 0.0) != 0.0) model.Refuse("dropout", "encoding must not be random");
  RefuseUnlessEmpty(model, "continuing_subword_prefix");
  RefuseUnlessEmpty(model, "end_of_word_suffix");

  low_characters_.fill(kNoToken);
  for (int32_t id = 0; id < vocab_.end_id(); ++id) {
    if (const auto token = vocab_.TokenOf(id)) SetCharacter(*token, id);
  }
  LoadSpecialTokens(model);
  LoadMerges(model);
}

// Makes a token of one character the symbol of that character.
void Bpe::SetCharacter(std::string_view token, int32_t id) {
  if (token.empty() || token.size() != Utf8Length(token[0])) return;
  const char32_t character = FirstCharacter(token);
  if (character < low_characters_.size()) {
    low_characters_[character] = id;
  } else {
    high_characters_.Set(character, static_cast<uint64_t>(id));
  }
}

void Bpe::LoadSpecialTokens(const JsonObject& model) {
  has_unknown_ = model.Has("unk_token");
  if (has_unknown_) {
    unknown_token_ = model.String("unk_token");
    unknown_id_ = vocab_.Find(unknown_token_);
  }
  all_bytes_ = byte_fallback_;
  for (int byte = 0; byte < 256; ++byte) {
    const int32_t id = byte_fallback_ ? vocab_.Find(fmt::format("<0x{:02X}>", byte)) : kNoToken;
    byte_ids_[static_cast<size_t>(byte)] = id;
    all_bytes_ = all_bytes_ && id != kNoToken;
  }
}

void Bpe::LoadMerges(const JsonObject& model) {
  const Json& merges = model.At("merges");
  if (!merges.is_array()) model.Refuse("merges", "expected an array");
  if (merges.size() > kMaxMerges) {
    throw ConfigError(fmt::format("{}: merges: at most {} are allowed, got {}", origin_, kMaxMerges, merges.size()));
  }
  merges_ = FlatMap(merges.size());
  int32_t guess = 0;  // most files number the merged tokens in the order of the merges, which saves look-ups
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const Json& merge = merges[rank];
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      guess = 1 + AddMerge(merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>(),
                           static_cast<uint32_t>(rank), guess);
      continue;
    }
    const std::string_view text = merge.is_string() ? std::string_view(merge.get_ref<const std::string&>()) : "";
    const size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
      throw ConfigError(fmt::format("{}: merges[{}]: expected \"a b\" or [\"a\", \"b\"], got {}", origin_, rank,
                                    merge.dump().substr(0, 80)));
    }
    guess = 1 + AddMerge(text.substr(0, space), text.substr(space + 1), static_cast<uint32_t>(rank), guess);
  }
  ranks_ = merges.size();
  FillAsciiJoins();
}

void Bpe::FillAsciiJoins() {
  for (char32_t left = 0; left < 128; ++left) {
    for (char32_t right = 0; right < 128; ++right) {
      ascii_joins_[left * 128 + right] =
          joins_.Find(uint64_t{left} << 32 | right) != FlatMap::kNone || !MaySplitAt(left) || !MaySplitAt(right);
    }
  }
}

// Returns the id of the merged token, which may be `guess`.
int32_t Bpe::AddMerge(std::string_view left, std::string_view right, uint32_t rank, int32_t guess) {
  const auto id_of = [&](std::string_view token) {
    const int32_t id = vocab_.Find(token);
    if (id == kNoToken) {
      throw ConfigError(
          fmt::format("{}: merges[{}]: token \"{}\" is not in the vocabulary", origin_, rank, token.substr(0, 80)));
    }
    return id;
  };
  const int32_t left_id = id_of(left);
  const int32_t right_id = id_of(right);
  const std::string merged = std::string(left).append(right);
  const int32_t merged_id = vocab_.TokenOf(guess) == merged ? guess : id_of(merged);
  merges_.Set(uint64_t{static_cast<uint32_t>(left_id)} << 32 | static_cast<uint32_t>(right_id),
              uint64_t{rank} << 32 | static_cast<uint32_t>(merged_id));
  if (left.empty() || right.empty()) return merged_id;
  // A token that stands for a byte or for the unknown is not the characters it is spelt with.
  for (const int32_t id : {left_id, right_id}) {
    const bool is_byte = byte_fallback_ && vocab_.TokenOf(id)->starts_with("<0x") &&
                         std::find(byte_ids_.begin(), byte_ids_.end(), id) != byte_ids_.end();
    if (is_byte || (has_unknown_ && id == unknown_id_)) cuts_ = false;
  }
  joins_.Set(uint64_t{LastCharacter(left)} << 32 | FirstCharacter(right), 1);
  return merged_id;
}

}  // namespace runahead::tokenizer
