// Tokens and their ids.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"

namespace runahead::tokenizer {

/// No real vocabulary comes near; a file that claims a larger id is refused before memory is taken for it.
inline constexpr int32_t kMaxTokenId = (1 << 22) - 1;
inline constexpr int32_t kNoToken = -1;

/// An id written in a file. Throws ConfigError, opening with `origin`, for anything but an integer in range.
int32_t LoadTokenId(const Json& value, const std::string& origin);

/// Both directions of a vocabulary; ids may have gaps.
class Vocab {
 public:
  /// Reads the object `key`: token to id. Throws ConfigError for ids that are no integers, out of range or given twice.
  static Vocab Load(const JsonObject& model, const char* key);

  /// The token must be new, its id free and in range.
  void Add(std::string token, int32_t id);

  [[nodiscard]] int32_t Find(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? kNoToken : found->second;
  }

  /// Null for an id that no token has.
  [[nodiscard]] const std::string* TokenOf(int32_t id) const {
    if (id < 0 || static_cast<size_t>(id) >= tokens_.size()) return nullptr;
    return tokens_[static_cast<size_t>(id)];
  }

  [[nodiscard]] int32_t size() const { return static_cast<int32_t>(ids_.size()); }         // tokens
  [[nodiscard]] int32_t end_id() const { return static_cast<int32_t>(tokens_.size()); }  // one past the largest id

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };

  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  std::vector<const std::string*> tokens_;  // [id], the keys of ids_
};

}  // namespace runahead::tokenizer
