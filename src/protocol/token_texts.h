// The text of each token by itself, for lists of log-probabilities.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "runahead/tokenizer.h"

namespace runahead::protocol {

/// Remembers what it was asked for. Thread-safe.
class TokenTexts {
 public:
  explicit TokenTexts(std::shared_ptr<const Tokenizer> tokenizer);

  /// The text that a token adds within a text: with the space that it begins with, U+FFFD for what is no whole
  /// character, special tokens as they are spelt. Empty for an id without a token; "token_id:5" without a tokenizer.
  /// Valid as long as this.
  const std::string& Of(int32_t id);

 private:
  [[nodiscard]] std::string Decoded(int32_t id) const;

  std::shared_ptr<const Tokenizer> tokenizer_;  // may be null
  std::vector<int32_t> before_;                 // a token before each other one, so that none opens a text; or none
  std::string before_text_;
  std::mutex mutex_;
  std::unordered_map<int32_t, std::string> texts_;  // guarded by mutex_
};

}  // namespace runahead::protocol
