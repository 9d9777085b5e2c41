#include "template_talk.h"

#include <utility>

namespace runahead::cli {
namespace {

using OrderedJson = nlohmann::ordered_json;

OrderedJson Message(const char* role, std::string_view content) { return {{"role", role}, {"content", content}}; }

}  // namespace

TemplateTalk::TemplateTalk(const Tokenizer& tokenizer, chat::ChatTemplates templates, TalkOpening opening)
    : tokenizer_(tokenizer), renderer_(std::move(templates)), opening_(std::move(opening)) {
  for (const std::string* text : {&opening_.system, &opening_.document}) {
    opening_tokens_ += static_cast<int64_t>(tokenizer_.Encode(*text, /*add_special=*/false).size());
  }
  renderer_.Start();
  Clear();
}

void TemplateTalk::Clear() {
  messages_ = OrderedJson::array();
  if (!opening_.system.empty()) messages_.push_back(Message("system", opening_.system));
  said_.clear();
  ids_.clear();
}

OrderedJson TemplateTalk::MessagesWith(std::string_view line) const {
  std::string content(line);
  const bool first = ids_.empty();
  if (first && !opening_.document.empty()) content = opening_.document + "\n\n" + content;
  OrderedJson messages = messages_;
  messages.push_back(Message("user", content));
  return messages;
}

std::string TemplateTalk::Rendered(const OrderedJson& messages) {
  const OrderedJson request = {{"messages", messages}, {"add_generation_prompt", true}};
  return renderer_.Render(chat::ChatRequest::Parse(request.dump(), "the conversation"));
}

Turn TemplateTalk::Next(std::string_view line) {
  (void)tokenizer_.Encode(line, /*add_special=*/false);  // refuses what is not UTF-8, by its place in the line
  asked_ = Rendered(MessagesWith(line));
  Turn turn{std::string(line), {}};
  std::string_view rest = asked_;
  if (rest.starts_with(said_)) {
    turn.ids = ids_;
    rest.remove_prefix(said_.size());
  }
  const std::vector<int32_t> more = tokenizer_.Encode(rest, /*add_special=*/false);
  turn.ids.insert(turn.ids.end(), more.begin(), more.end());
  return turn;
}

void TemplateTalk::Add(Turn turn, const Answer& answer) {
  messages_ = MessagesWith(turn.line);
  messages_.push_back(Message("assistant", answer.text));
  said_ = asked_ + answer.text;
  ids_ = std::move(turn.ids);
  const std::vector<int32_t> ids = IdsOfText(tokenizer_, answer);
  ids_.insert(ids_.end(), ids.begin(), ids.end());
}

}  // namespace runahead::cli
