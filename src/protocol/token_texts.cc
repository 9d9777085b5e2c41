#include "protocol/token_texts.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "runahead/error.h"

namespace runahead::protocol {

TokenTexts::TokenTexts(std::shared_ptr<const Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {
  if (tokenizer_ == nullptr) return;
  const std::vector<int32_t> letter = tokenizer_->Encode("a", /*add_special=*/false);
  if (letter.empty()) return;
  before_ = {letter.back()};
  before_text_ = tokenizer_->Decode(before_, /*skip_special=*/false);
}

const std::string& TokenTexts::Of(int32_t id) {
  const std::lock_guard lock(mutex_);
  const auto [text, is_new] = texts_.try_emplace(id);
  if (is_new) text->second = Decoded(id);
  return text->second;
}

std::string TokenTexts::Decoded(int32_t id) const {
  if (tokenizer_ == nullptr) return fmt::format("token_id:{}", id);  // vLLM's form for it
  std::vector<int32_t> ids = before_;
  ids.push_back(id);
  try {
    std::string text = tokenizer_->Decode(ids, /*skip_special=*/false);
    if (text.starts_with(before_text_)) return text.substr(before_text_.size());
    return tokenizer_->Decode({&id, 1}, /*skip_special=*/false);
  } catch (const ConfigError&) {  // the model's head is padded beyond the tokenizer's vocabulary
    return {};
  }
}

}  // namespace runahead::protocol
