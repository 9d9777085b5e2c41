// Fuzzes requests: as HTTP, which must say the same in whatever pieces it comes; and its body, or what is no HTTP, is
// read as what every route takes, and as a target.
#include <algorithm>

#include "demo_tokenizer.h"
#include "fuzz_folder.h"
#include "protocol/api_error.h"
#include "protocol/asked.h"
#include "protocol/conversation.h"
#include "protocol/http_text.h"
#include "protocol/text_routes.h"
#include "server/request_parser.h"

namespace runahead::protocol {
namespace {

constexpr size_t kMostHeader = 4096;  // bytes
constexpr size_t kMostBody = 16384;

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

/// One request out of `bytes`, which come in pieces of `piece` bytes.
server::RequestParser Parsed(std::string_view bytes, size_t piece) {
  server::RequestParser parser(kMostHeader, kMostBody);
  std::string input;
  while (!bytes.empty() && !parser.done() && !parser.refusal()) {
    input += bytes.substr(0, piece);
    bytes.remove_prefix(std::min(piece, bytes.size()));
    size_t used = 1;
    while (used > 0 && !parser.done() && !parser.refusal()) {
      used = parser.Take(input);
      if (used > input.size()) __builtin_trap();
      input.erase(0, used);
    }
  }
  return parser;
}

bool Same(const HttpRequest& a, const HttpRequest& b) {
  const auto same = [](const HttpField& x, const HttpField& y) { return x.name == y.name && x.value == y.value; };
  return a.method == b.method && a.target == b.target && a.body == b.body &&
         std::equal(a.fields.begin(), a.fields.end(), b.fields.begin(), b.fields.end(), same);
}

/// The body of a request that is whole, else all of `text`. What is no request may be refused sooner in larger
/// pieces.
std::string BodyOf(std::string_view text) {
  server::RequestParser whole = Parsed(text, std::max<size_t>(text.size(), 1));
  for (const size_t piece : {size_t{1}, size_t{7}}) {
    const server::RequestParser parts = Parsed(text, piece);
    if (whole.done() != parts.done()) __builtin_trap();
    if (!whole.done()) continue;
    if (!Same(whole.request(), parts.request()) || whole.keep_alive() != parts.keep_alive()) __builtin_trap();
  }
  if (!whole.done()) return std::string(text);
  HttpRequest request = whole.TakeRequest();
  if (request.body.size() > kMostBody) __builtin_trap();
  (void)PathOf(request.target);
  MayAnswer([&] { CheckMediaType(request); });
  return std::move(request.body);
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
  const std::string text = BodyOf(fuzz::TextOf(data, size));
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
