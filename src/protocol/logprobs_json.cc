#include "protocol/logprobs_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "protocol/json_text.h"

namespace runahead::protocol {
namespace {

/// "token":...,"logprob":...,"bytes":[...]
std::string ChatFields(const std::string& text, float logprob) {
  std::string bytes;
  for (const char byte : text) AddTo(bytes, fmt::format("{}", static_cast<unsigned char>(byte)));
  return fmt::format(R"("token":{},"logprob":{},"bytes":[{}])", Quoted(text), NumberText(logprob), bytes);
}

}  // namespace

void LogprobsJson::Add(const RequestEvent& token) { chat_ ? AddToChat(token) : AddToCompletion(token); }

void LogprobsJson::AddToChat(const RequestEvent& event) {
  std::string top;
  for (const TokenLogprob& likely : event.likely) {
    AddTo(top, fmt::format("{{{}}}", ChatFields(texts_->Of(likely.id), likely.logprob)));
  }
  const std::string own = ChatFields(texts_->Of(event.token.id), event.token.logprob);
  AddTo(tokens_, fmt::format(R"({{{},"top_logprobs":[{}]}})", own, top));
}

void LogprobsJson::AddToCompletion(const RequestEvent& event) {
  const std::string& text = texts_->Of(event.token.id);
  std::string top;
  std::set<std::string_view> seen;  // parts of characters all have the text U+FFFD
  const auto add = [&](const TokenLogprob& token) {
    const std::string& name = texts_->Of(token.id);
    if (seen.insert(name).second) AddTo(top, fmt::format("{}:{}", Quoted(name), NumberText(token.logprob)));
  };
  for (const TokenLogprob& likely : event.likely) add(likely);
  add(event.token);
  AddTo(tokens_, Quoted(text));
  AddTo(logprobs_, NumberText(event.token.logprob));
  AddTo(top_, fmt::format("{{{}}}", top));
  AddTo(offsets_, fmt::format("{}", offset_));
  offset_ += Characters(text);
}

std::string LogprobsJson::Take() {
  if (chat_) return fmt::format(R"({{"content":[{}],"refusal":null}})", std::exchange(tokens_, {}));
  return fmt::format(R"({{"tokens":[{}],"token_logprobs":[{}],"top_logprobs":[{}],"text_offset":[{}]}})",
                     std::exchange(tokens_, {}), std::exchange(logprobs_, {}), std::exchange(top_, {}),
                     std::exchange(offsets_, {}));
}

}  // namespace runahead::protocol
