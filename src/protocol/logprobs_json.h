// The log-probabilities of an answer's tokens as JSON, written as the tokens come.
#pragma once

#include <cstdint>
#include <string>

#include "protocol/token_texts.h"
#include "runahead/request.h"

namespace runahead::protocol {

/// Those of one choice. Of completions: tokens, token_logprobs, top_logprobs (the likeliest and the token itself) and
/// text_offset; of chats: content with token, logprob, bytes and top_logprobs. Borrows the texts.
class LogprobsJson {
 public:
  LogprobsJson(TokenTexts& texts, bool chat) : texts_(&texts), chat_(chat) {}

  void Add(const RequestEvent& token);

  /// The object of all tokens that were added since the last call.
  std::string Take();

 private:
  void AddToChat(const RequestEvent& event);
  void AddToCompletion(const RequestEvent& event);

  TokenTexts* texts_;
  bool chat_;
  int64_t offset_ = 0;  // characters before the next token
  // Lists of completions; chats have only the first.
  std::string tokens_;
  std::string logprobs_;
  std::string top_;
  std::string offsets_;
};

}  // namespace runahead::protocol
