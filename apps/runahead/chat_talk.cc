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

std::vector<int32_t> IdsOfText(const Tokenizer& tokenizer, const Answer& answer) {
  if (answer.finish != FinishReason::kStop) return answer.ids();
  std::vector<int32_t> ids;
  StreamDecoder decoder(tokenizer);
  size_t end = 0;  // bytes of the text of `ids`
  for (const AnswerToken& each : answer.tokens) {
    const size_t next = end + TextOf(decoder, each.token.id).size();
    if (next > answer.text.size()) {  // the text ends inside this token
      const auto rest = tokenizer.Encode(std::string_view(answer.text).substr(end), /*add_special=*/false);
      ids.insert(ids.end(), rest.begin(), rest.end());
      break;
    }
    ids.push_back(each.token.id);
    end = next;
  }
  return ids;
}

PlainTalk::PlainTalk(const Tokenizer& tokenizer, TalkForm form) : tokenizer_(tokenizer), form_(std::move(form)) {
  opening_ = tokenizer_.Encode(form_.opening);
  // A tokenizer that ends texts too would end the conversation before its first turn.
  if (opening_.size() > 1 && opening_.back() == tokenizer_.eos_id()) opening_.pop_back();
  Clear();
}

void PlainTalk::Clear() {
  ids_ = opening_;
  answered_ = false;
}

Turn PlainTalk::Next(std::string_view line) {
  std::string text = answered_ ? form_.turn_end : "";
  text += form_.user_prefix;
  text += line;
  text += form_.assistant_prefix;
  Turn turn{std::string(line), ids_};
  const std::vector<int32_t> more = tokenizer_.Encode(text, /*add_special=*/false);
  turn.ids.insert(turn.ids.end(), more.begin(), more.end());
  return turn;
}

void PlainTalk::Add(Turn turn, const Answer& answer) {
  ids_ = std::move(turn.ids);
  const std::vector<int32_t> ids = IdsOfText(tokenizer_, answer);
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  answered_ = true;
}

}  // namespace runahead::cli
