#include "chat_talk.h"

#include <utility>

#include "runahead/error.h"

namespace runahead::cli {
namespace {

/// Nothing for an id without a token, which a model's padded head can draw.
std::string TextOf(StreamDecoder& decoder, int32_t id) {
  try {
    return decoder.Feed(id);
  } catch (const ConfigError&) {
    return {};
  }
}

}  // namespace

std::string TalkForm::NextTurn() const {
  std::string text = turn_end + user_prefix;
  text.resize(text.find_last_not_of(" \t\r\n") + 1);  // npos + 1 is 0
  return text;
}

Talk::Talk(const Tokenizer& tokenizer, TalkForm form) : tokenizer_(tokenizer), form_(std::move(form)) { Clear(); }

void Talk::Clear() {
  ids_ = tokenizer_.Encode(form_.opening);
  // A tokenizer that ends texts too would end the conversation before its first turn.
  if (ids_.size() > 1 && ids_.back() == tokenizer_.eos_id()) ids_.pop_back();
  answered_ = false;
}

std::vector<int32_t> Talk::PromptFor(std::string_view line) const {
  std::string turn = answered_ ? form_.turn_end : "";
  turn += form_.user_prefix;
  turn += line;
  turn += form_.assistant_prefix;
  std::vector<int32_t> prompt = ids_;
  const std::vector<int32_t> more = tokenizer_.Encode(turn, /*add_special=*/false);
  prompt.insert(prompt.end(), more.begin(), more.end());
  return prompt;
}

void Talk::Add(std::vector<int32_t> prompt, const Answer& answer) {
  ids_ = std::move(prompt);
  const std::vector<int32_t> ids = answer.finish == FinishReason::kStop ? IdsOfText(answer) : answer.ids();
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  answered_ = true;
}

std::vector<int32_t> Talk::IdsOfText(const Answer& answer) const {
  std::vector<int32_t> ids;
  StreamDecoder decoder(tokenizer_);
  size_t end = 0;  // bytes of the text of `ids`
  for (const AnswerToken& each : answer.tokens) {
    const size_t next = end + TextOf(decoder, each.token.id).size();
    if (next > answer.text.size()) {  // the text ends inside this token
      const auto rest = tokenizer_.Encode(std::string_view(answer.text).substr(end), /*add_special=*/false);
      ids.insert(ids.end(), rest.begin(), rest.end());
      break;
    }
    ids.push_back(each.token.id);
    end = next;
  }
  return ids;
}

}  // namespace runahead::cli
