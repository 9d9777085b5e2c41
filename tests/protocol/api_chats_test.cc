// /v1/chat/completions: conversations in the form of the model's template.
#include "tests/protocol/fixture.h"

namespace runahead::protocol {
namespace {

constexpr const char* kPath = "/v1/chat/completions";

class ChatsTest : public ApiTest {
 protected:
  static Json Said(const std::string& text) { return {{{"role", "user"}, {"content", text}}}; }

  /// The ids of the prompt that a body becomes.
  Json IdsOf(const Json& body) { return Post("/tokenize", body)->json()["tokens"]; }
  static Json Encoded(const std::string& text) { return tokenizer().Encode(text, /*add_special=*/false); }

  Json Chat(const Json& body) {
    const auto answer = Post(kPath, body);
    EXPECT_EQ(answer->status(), 200) << answer->body();
    return answer->json();
  }

  static std::string TextOf(const std::vector<Json>& events) {
    std::string text;
    for (const Json& event : events) {
      for (const Json& choice : event["choices"]) text += choice["delta"].value("content", "");
    }
    return text;
  }
};

TEST_F(ChatsTest, AnswersInTheFormOfTheApi) {
  const Json body = {{"messages", Said("Where do ships go?")}, {"max_completion_tokens", 8}, {"temperature", 0}};
  const Json answer = Chat(body);
  EXPECT_TRUE(answer["id"].get<std::string>().starts_with("chatcmpl-"));
  EXPECT_EQ(answer["object"], "chat.completion");
  const Json& choice = answer["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_TRUE(choice["message"]["refusal"].is_null());
  const Json ids = Encoded("user: Where do ships go?\nassistant:");
  EXPECT_EQ(answer["usage"]["prompt_tokens"], ids.size());
  EXPECT_EQ(Complete({{"prompt", ids}, {"max_tokens", 8}, {"temperature", 0}})["choices"][0]["text"],
            choice["message"]["content"]);

  const std::vector<Json> events = Stream(kPath, body);
  EXPECT_EQ(events[0]["object"], "chat.completion.chunk");
  EXPECT_EQ(events[0]["choices"][0]["delta"], Json({{"role", "assistant"}, {"content", ""}}));
  EXPECT_EQ(choice["message"]["content"], TextOf(events));
  EXPECT_EQ(events.back()["choices"][0]["delta"], Json::object());
  EXPECT_EQ(events.back()["choices"][0]["finish_reason"], choice["finish_reason"]);
  EXPECT_TRUE(events.back().contains("runahead"));
}

TEST_F(ChatsTest, JoinsPartsAndKnowsRoles) {
  const Json parts = {{{"type", "text"}, {"text", "a"}}, {{"type", "text"}, {"text", "b"}}};
  const Json body = {{"messages",
                      {{{"role", "developer"}, {"content", "Be brief."}},
                       {{"role", "user"}, {"content", parts}},
                       {{"role", "assistant"}, {"content", "c"}},
                       {{"role", "user"}, {"content", "d"}, {"name", "x"}}}}};
  EXPECT_EQ(IdsOf(body), Encoded("system: Be brief.\nuser: a\nb\nassistant: c\nuser: d\nassistant:"));
}

TEST_F(ChatsTest, PassesVariablesOn) {
  Json body = {{"messages", Said("Hi")}, {"chat_template_kwargs", {{"tail", " well,"}}}};
  EXPECT_EQ(IdsOf(body), Encoded("user: Hi\nassistant: well,"));
  body = {{"messages", Said("Hi")}, {"add_generation_prompt", false}};
  EXPECT_EQ(IdsOf(body), Encoded("user: Hi\n"));
  body = {{"messages", {{{"role", "user"}, {"content", "Hi"}}, {{"role", "assistant"}, {"content", "Well, I"}}}},
          {"continue_final_message", true}};
  EXPECT_EQ(IdsOf(body), Encoded("user: Hi\nassistant: Well, I"));
}

TEST_F(ChatsTest, AnswersUntilTheContextIsFullUnlessTold) {
  const Json body = {{"messages", Said(LongText("whale", 130))}, {"ignore_eos", true}};
  const Json answer = Chat(body);
  const int prompt = answer["usage"]["prompt_tokens"];
  EXPECT_GT(prompt, kContext * 3 / 4);
  EXPECT_EQ(prompt + answer["usage"]["completion_tokens"].get<int>(), kContext);
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
}

TEST_F(ChatsTest, ReportsLogprobs) {
  const Json body = {{"messages", Said("Hi")}, {"max_tokens", 4},  {"temperature", 0},
                     {"ignore_eos", true},     {"logprobs", true}, {"top_logprobs", 3}};
  const Json choice = Chat(body)["choices"][0];
  const Json& content = choice["logprobs"]["content"];
  ASSERT_EQ(content.size(), 4U);
  for (const Json& token : content) {
    const std::string text = token["token"];
    std::string bytes;
    for (const Json& byte : token["bytes"]) bytes += static_cast<char>(byte.get<int>());
    EXPECT_EQ(bytes, text);
    ASSERT_EQ(token["top_logprobs"].size(), 3U);
    EXPECT_EQ(token["top_logprobs"][0]["token"], text);
    EXPECT_EQ(token["top_logprobs"][0]["logprob"], token["logprob"]);
    EXPECT_GE(token["top_logprobs"][0]["logprob"], token["top_logprobs"][1]["logprob"]);
  }
  Json streamed = Json::array();
  for (const Json& event : Stream(kPath, body)) {
    const Json& part = event["choices"][0]["logprobs"];
    if (part.is_null()) continue;
    for (const Json& token : part["content"]) streamed.push_back(token);
  }
  EXPECT_EQ(streamed, content);
  Json bare = body;
  bare.erase("top_logprobs");
  EXPECT_EQ(Chat(bare)["choices"][0]["logprobs"]["content"][0]["top_logprobs"], Json::array());
}

TEST_F(ChatsTest, ManyChoicesAreStreamedByIndex) {
  const Json body = {{"messages", Said("Hi")},
                     {"max_tokens", 3},
                     {"n", 3},
                     {"seed", 1},
                     {"ignore_eos", true},
                     {"stream_options", {{"include_usage", true}}}};
  const Json whole = Chat(body);
  std::vector<std::string> texts(3);
  std::vector<int> finished(3);
  const std::vector<Json> events = Stream(kPath, body);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(events[i]["choices"][0]["delta"]["role"], "assistant");
  for (const Json& event : events) {
    for (const Json& choice : event["choices"]) {
      const size_t index = choice["index"];
      texts[index] += choice["delta"].value("content", "");
      finished[index] += choice["finish_reason"].is_null() ? 0 : 1;
    }
  }
  EXPECT_EQ(finished, (std::vector<int>{1, 1, 1}));
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(whole["choices"][i]["message"]["content"], texts[i]);
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], 9);
}

TEST_F(ChatsTest, ASecondTurnFindsTheFirstOnesRows) {
  Json messages = Said(LongText("otter", 80));
  const Json first = Chat({{"messages", messages}, {"max_tokens", 5}, {"temperature", 0}});
  messages.push_back(first["choices"][0]["message"]);
  messages.push_back({{"role", "user"}, {"content", "And then?"}});
  const Json second = Chat({{"messages", messages}, {"max_tokens", 5}, {"temperature", 0}});
  EXPECT_GT(second["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>() * 10,
            first["usage"]["prompt_tokens"].get<int>() * 8);
}

}  // namespace
}  // namespace runahead::protocol
