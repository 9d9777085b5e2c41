// Fuzzes the bodies of requests: each is read as what every route takes, and its first line as a target.
#include "demo_tokenizer.h"
#include "fuzz_folder.h"
#include "protocol/api_error.h"
#include "protocol/asked.h"
#include "protocol/conversation.h"
#include "protocol/http_text.h"
#include "protocol/text_routes.h"

namespace runahead::protocol {
namespace {

constexpr int64_t kVocab = 1536;
constexpr int64_t kContext = 8192;

/// Reads; what is refused must have an answer that is JSON and names a client's error.
template <typename Read>
void MayAnswer(Read&& read) {
  try {
    read();
  } catch (const std::exception& thrown) {
    const ApiError error = AsApiError(thrown);
    const Json body = Json::parse(ErrorBody(error));
    const bool right = error.status() >= 400 && (error.status() < 500 || error.status() == 501);
    if (!right || body.at("error").at("message").get<std::string>().empty()) __builtin_trap();
  }
}

void CheckAsked(const Asked& asked) {
  const Request& request = asked.fields.request;
  bool right =
      asked.chat == asked.prompts.empty() && request.generation.max_new_tokens > 0 && asked.fields.choices > 0;
  for (const std::vector<int32_t>& prompt : asked.prompts) {
    right = right && !prompt.empty() && prompt.size() <= kContext;
    for (const int32_t id : prompt) right = right && id >= 0 && id < kVocab;
  }
  if (!right) __builtin_trap();
}

}  // namespace
}  // namespace runahead::protocol

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace runahead;
  using namespace runahead::protocol;
  const auto& tokenizer = fuzz::DemoTokenizer();
  static const ModelLimits limits{kVocab, kContext, tokenizer.get(), "no tokenizer", {1}};
  static ChatPrompts chat(nullptr, tokenizer, "no chat");
  static TokenTexts texts(tokenizer);
  const std::string_view text = fuzz::TextOf(data, size);
  (void)PathOf(text);
  (void)QueryOf(text, "known");
  Json body;
  bool is_json = false;
  MayAnswer([&] {
    body = ParseJson(text, "request");
    is_json = true;
  });
  if (!is_json) return 0;
  MayAnswer([&] { CheckAsked(ReadCompletion(body, limits)); });
  MayAnswer([&] { CheckAsked(ReadChat(body, limits)); });
  MayAnswer([&] { (void)ReadConversation(text, body); });
  MayAnswer([&] { (void)Json::parse(Tokenized(text, body, limits, chat, texts)); });
  MayAnswer([&] { (void)Json::parse(Detokenized(body, limits)); });
  return 0;
}
