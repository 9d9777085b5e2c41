// What the API serves and refuses, and how it says so.
#include <fmt/format.h>

#include <regex>

#include "protocol/openapi.h"
#include "tests/protocol/fixture.h"

namespace runahead::protocol {
namespace {

TEST_F(ApiTest, ListsItsModel) {
  const auto list = Ask("GET", "/v1/models?x=1");
  EXPECT_EQ(list->status(), 200);
  EXPECT_EQ(list->Field("content-type"), "application/json");
  EXPECT_EQ(list->json()["object"], "list");
  ASSERT_EQ(list->json()["data"].size(), 1U);
  const Json model = list->json()["data"][0];
  EXPECT_EQ(model["id"], "demo");
  EXPECT_EQ(model["object"], "model");
  EXPECT_EQ(model["max_model_len"], kContext);
  EXPECT_EQ(Ask("GET", "/v1/models/demo")->json(), model);
  EXPECT_EQ(Ask("GET", "/v1/models/%64emo")->json(), model);
  const auto other = Ask("GET", "/v1/models/other");
  EXPECT_EQ(other->status(), 404);
  EXPECT_EQ(other->json()["error"]["code"], "model_not_found");
}

TEST_F(ApiTest, IsNamedAfterItsFolderUnlessTold) {
  for (const char* folder : {"models/demo", "models/demo/"}) {
    const Api api(engine(), Model(std::filesystem::path(SourceDir()) / folder), nullptr, nullptr, {});
    EXPECT_EQ(Json::parse(api.StateJson())["model"], "demo") << folder;
  }
}

TEST_F(ApiTest, NamesWhatIsNotThereAndHowItIsAsked) {
  const auto nothing = Ask("GET", "/v1/nothing");
  EXPECT_EQ(nothing->status(), 404);
  EXPECT_NE(nothing->json()["error"]["message"].get<std::string>().find("/v1/nothing"), std::string::npos);
  for (const char* path : {"/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"}) {
    const auto answer = Ask("GET", path);
    EXPECT_EQ(answer->status(), 405) << path;
    EXPECT_EQ(answer->Field("allow"), "POST");
    EXPECT_EQ(answer->json()["error"]["type"], "invalid_request_error");
  }
  EXPECT_EQ(Ask("DELETE", "/v1/models/demo")->Field("allow"), "GET");
}

TEST_F(ApiTest, DescribesItself) {
  const auto answer = Ask("GET", "/openapi.json");
  EXPECT_EQ(answer->status(), 200);
  const Json json = answer->json();
  EXPECT_EQ(json["openapi"], "3.1.0");
  EXPECT_EQ(json["components"]["schemas"]["ModelName"]["enum"], Json({"demo", nullptr}));
  EXPECT_EQ(json["components"]["schemas"]["TokenId"]["maximum"], 1535);
  for (const auto& [path, methods] : json["paths"].items()) {
    if (path == "/health" || path == "/ready" || path == "/metrics") continue;  // the server's own
    for (const auto& [method, described] : methods.items()) {
      const int status = Ask(method == "get" ? "GET" : "POST", path, "{}")->status();
      EXPECT_TRUE(described["responses"].contains(std::to_string(status))) << path << " " << status;
      EXPECT_NE(status, 405) << path;
    }
  }
  // Each schema that is referred to is there.
  const std::string text = answer->body();
  const std::string mark = "#/components/schemas/";
  for (size_t at = 0; (at = text.find(mark, at)) != std::string::npos; at += mark.size()) {
    const size_t begin = at + mark.size();
    EXPECT_TRUE(json["components"]["schemas"].contains(text.substr(begin, text.find('"', begin) - begin)));
  }
}

TEST(OpenApiTest, NumbersHaveAPattern) {
  for (const int last : {0, 7, 10, 99, 100, 1535, 2000}) {
    const std::regex pattern(NumbersUpTo(last));
    for (int i = 0; i < 3000; ++i) EXPECT_EQ(std::regex_match(std::to_string(i), pattern), i <= last) << i << last;
    EXPECT_FALSE(std::regex_match("-1", pattern));
    EXPECT_FALSE(std::regex_match("x", pattern));
  }
}

TEST_F(ApiTest, TakesJsonAlone) {
  const std::string body = R"({"prompt": "The", "max_tokens": 1})";
  const auto status = [&](const char* type) {
    return Ask("POST", "/v1/completions", body, {{"content-type", type}})->status();
  };
  EXPECT_EQ(status("application/json"), 200);
  EXPECT_EQ(status("Application/JSON; charset=utf-8"), 200);
  EXPECT_EQ(status("text/plain"), 415);
  EXPECT_EQ(status("application/x-www-form-urlencoded"), 415);
}

/// A body, the status that it gets, the field that the error names, and its code.
struct Refused {
  const char* path;
  std::string body;
  int status;
  const char* param;  // null: none
  const char* code;
};

TEST_F(ApiTest, SaysWhatIsWrong) {
  constexpr const char* kText = "/v1/completions";
  constexpr const char* kChat = "/v1/chat/completions";
  const std::string said = R"("messages": [{"role": "user", "content": "Hi"}])";
  const std::vector<Refused> all = {
      {kText, "", 400, nullptr, "invalid_value"},
      {kText, "{", 400, nullptr, "invalid_value"},
      {kText, "[]", 400, nullptr, "invalid_value"},
      {kText, "{\"prompt\": \"\xff\"}", 400, nullptr, "invalid_value"},
      {kText, R"({"prompt": "\ud800"})", 400, nullptr, "invalid_value"},
      {kText, R"({"prompt": "a", "prompt": "b"})", 400, nullptr, "invalid_value"},
      {kText, std::string(100'000, '['), 400, nullptr, "invalid_value"},
      {kText, "{}", 400, "prompt", "invalid_value"},
      {kText, R"({"prompt": null})", 400, "prompt", "invalid_value"},
      {kText, R"({"prompt": 5})", 400, "prompt", "invalid_value"},
      {kText, R"({"prompt": []})", 400, "prompt", "invalid_value"},
      {kText, R"({"prompt": [1, 1536]})", 400, "prompt[1]", "invalid_value"},
      {kText, R"({"prompt": [[1], [2, -1]]})", 400, "prompt[1][1]", "invalid_value"},
      {kText, R"({"prompt": ["a", 5]})", 400, "prompt[1]", "invalid_value"},
      {kText, R"({"prompt": "a", "model": "gpt-4"})", 404, "model", "model_not_found"},
      {kText, R"({"prompt": "a", "model": 5})", 400, "model", "invalid_value"},
      {kText, R"({"prompt": "a", "max_tokens": 0})", 400, "max_tokens", "invalid_value"},
      {kText, R"({"prompt": "a", "max_completion_tokens": "5"})", 400, "max_completion_tokens", "invalid_value"},
      {kText, R"({"prompt": "a", "temperature": -1})", 400, "temperature", "invalid_value"},
      {kText, R"({"prompt": "a", "top_p": 2})", 400, "top_p", "invalid_value"},
      {kText, R"({"prompt": "a", "stop": [""]})", 400, "stop[0]", "invalid_value"},
      {kText, R"({"prompt": "a", "logprobs": 21})", 400, "logprobs", "invalid_value"},
      {kText, R"({"prompt": "a", "logit_bias": {"x": 1}})", 400, "logit_bias", "invalid_value"},
      {kText, R"({"prompt": "a", "n": 129})", 400, "n", "invalid_value"},
      {kText, R"({"prompt": "a", "stream": 1})", 400, "stream", "invalid_value"},
      {kText, R"({"prompt": "a", "stream_options": true})", 400, "stream_options", "invalid_value"},
      {kText, R"({"prompt": "a", "suffix": "b"})", 400, "suffix", "unsupported_parameter"},
      {kText, R"({"prompt": "a", "best_of": 2})", 400, "best_of", "unsupported_parameter"},
      {kText, R"({"prompt": "a", "echo": true, "logprobs": 1})", 400, "echo", "unsupported_parameter"},
      {kText, Json({{"prompt", std::vector<int>(kContext + 1, 5)}}).dump(), 400, "prompt", "context_length_exceeded"},
      {kText, Json({{"prompt", "a"}, {"stop", std::vector<std::string>(65, "x")}}).dump(), 400, "stop",
       "invalid_value"},
      {kText, Json({{"prompt", "a"}, {"stop", std::string(1025, 'x')}}).dump(), 400, "stop", "invalid_value"},
      {kText, Json({{"prompt", std::vector<std::string>(20, "x")}, {"n", 100}}).dump(), 400, "n", "invalid_value"},
      {kChat, "{}", 400, "messages", "invalid_value"},
      {kChat, R"({"messages": []})", 400, "messages", "invalid_value"},
      {kChat, R"({"messages": [5]})", 400, "messages[0]", "invalid_value"},
      {kChat, R"({"messages": [{"content": "a"}]})", 400, "messages[0]", "invalid_value"},
      {kChat, R"({"messages": [{"role": "user"}]})", 400, "messages[0]", "invalid_value"},
      {kChat, R"({"messages": [{"role": "user", "content": 5}]})", 400, "messages[0].content", "invalid_value"},
      {kChat, R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]})",
       400, "messages[0].content[0]", "unsupported_parameter"},
      {kChat, R"({"messages": [{"role": "tool", "content": "a"}]})", 400, "messages[0].role",
       "unsupported_parameter"},
      {kChat, R"({"messages": [{"role": "martian", "content": "a"}]})", 400, nullptr, "invalid_value"},
      {kChat, "{" + said + R"(, "tools": [{"type": "function"}]})", 400, "tools", "unsupported_parameter"},
      {kChat, "{" + said + R"(, "tool_choice": "required"})", 400, "tool_choice", "unsupported_parameter"},
      {kChat, "{" + said + R"(, "response_format": {"type": "json_object"}})", 400, "response_format",
       "unsupported_parameter"},
      {kChat, "{" + said + R"(, "functions": [{"name": "f"}]})", 400, "functions", "unsupported_parameter"},
      {kChat, "{" + said + R"(, "modalities": ["audio"]})", 400, "modalities", "unsupported_parameter"},
      {kChat, "{" + said + R"(, "top_logprobs": 2})", 400, "top_logprobs", "invalid_value"},
      {kChat, "{" + said + R"(, "logprobs": 2})", 400, "logprobs", "invalid_value"},
      {kChat, "{" + said + R"(, "chat_template": "{{ 1 }}"})", 400, "chat_template", "invalid_value"},
      {kChat, "{" + said + R"(, "chat_template_kwargs": {"messages": 1}})", 400, "chat_template_kwargs.messages",
       "invalid_value"},
      {kChat, "{" + said + R"(, "add_generation_prompt": true, "continue_final_message": true})", 400,
       "continue_final_message", "invalid_value"},
      {"/tokenize", "{}", 400, "prompt", "invalid_value"},
      {"/detokenize", R"({"tokens": "a"})", 400, "tokens", "invalid_value"},
      {"/detokenize", R"({"tokens": [1536]})", 400, "tokens[0]", "invalid_value"},
  };
  for (const Refused& each : all) {
    const auto answer = Ask("POST", each.path, each.body);
    const std::string shown = each.path + each.body.substr(0, 200) + " -> " + answer->body();
    EXPECT_EQ(answer->status(), each.status) << shown;
    ASSERT_TRUE(answer->json().contains("error")) << shown;
    const Json error = answer->json()["error"];
    EXPECT_EQ(error["param"], each.param == nullptr ? Json() : Json(each.param)) << shown;
    EXPECT_EQ(error["code"], each.code) << shown;
    EXPECT_EQ(error["type"], "invalid_request_error") << shown;
    EXPECT_FALSE(error["message"].get<std::string>().empty()) << shown;
    EXPECT_LT(answer->body().size(), 1000U) << shown;
  }
}

TEST_F(ApiTest, TakesWhatAsksForNothing) {
  const Json body = Json::parse(R"({"prompt": "The", "max_tokens": 1, "tools": [], "suffix": null, "best_of": 1,
    "unknown": {"deep": [1]}, "user": "u", "metadata": {"a": "b"}, "store": true, "model": "demo", "stop": null})");
  EXPECT_EQ(Post("/v1/completions", body)->status(), 200);
  const Json chat = Json::parse(R"({"messages": [{"role": "user", "content": "Hi", "tool_calls": []}],
    "max_tokens": 1, "tool_choice": "none", "response_format": {"type": "text"}, "modalities": ["text"],
    "function_call": "auto", "parallel_tool_calls": true, "temperature": null, "functions": null})");
  EXPECT_EQ(Post("/v1/chat/completions", chat)->status(), 200);
}

TEST_F(ApiTest, NumbersOfKeysAreBoundedWhereTheirOrderIsKept) {
  Json many = Json::object();
  for (int i = 0; i < 1001; ++i) many[std::to_string(i)] = i;
  const Json body = {{"messages", {{{"role", "user"}, {"content", "Hi"}, {"x", many}}}}};
  const auto answer = Post("/v1/chat/completions", body);
  EXPECT_EQ(answer->status(), 400);
  EXPECT_NE(answer->body().find("1001 keys"), std::string::npos) << answer->body();
}

TEST_F(ApiTest, ServesPromptsOfIdsWithoutATokenizer) {
  api_ = std::make_unique<Api>(engine(), Model(ModelFolder()), nullptr, nullptr,
                               ApiOptions{"bare", "DIR: the folder has no tokenizer", "DIR has no tokenizer"});
  const Json answer = Complete({{"prompt", {5, 6, 7}},
                                {"max_tokens", 2},
                                {"ignore_eos", true},
                                {"logprobs", 0},
                                {"logit_bias", {{"9", 100}}}});
  EXPECT_EQ(answer["usage"]["completion_tokens"], 2);
  EXPECT_EQ(answer["choices"][0]["logprobs"]["tokens"], Json({"token_id:9", "token_id:9"}));
  EXPECT_EQ(answer["choices"][0]["text"], "");
  const auto text = Post("/v1/completions", {{"prompt", "a"}});
  EXPECT_EQ(text->status(), 400);
  EXPECT_NE(text->body().find("no tokenizer"), std::string::npos);
  const Json said = {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}};
  EXPECT_EQ(Post("/v1/chat/completions", said)->status(), 501);
  EXPECT_EQ(Post("/tokenize", {{"prompt", "a"}})->status(), 501);
}

TEST_F(ApiTest, RefusesWhatItsTemplateRefusesAndSaysWhenThereIsNone) {
  const Json said = {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}};
  api_ = std::make_unique<Api>(engine(), Model(ModelFolder()), std::make_shared<const Tokenizer>(tokenizer()),
                               nullptr, ApiOptions{"demo", "", "python3 is missing"});
  const auto answer = Post("/v1/chat/completions", said);
  EXPECT_EQ(answer->status(), 501);
  EXPECT_EQ(answer->json()["error"]["message"], "python3 is missing");
  EXPECT_EQ(answer->json()["error"]["type"], "server_error");
}

TEST_F(ApiTest, TokenizesAsVllmAndLlamaDo) {
  const std::vector<int32_t> bare = tokenizer().Encode("The harbour", false);
  const std::vector<int32_t> special = tokenizer().Encode("The harbour");
  EXPECT_NE(bare, special);
  Json answer = Post("/tokenize", {{"prompt", "The harbour"}, {"return_token_strs", true}})->json();
  EXPECT_EQ(answer["tokens"], Json(special));
  EXPECT_EQ(answer["count"], special.size());
  EXPECT_EQ(answer["max_model_len"], kContext);
  std::string joined;
  for (const Json& part : answer["token_strs"]) joined += part.get<std::string>();
  EXPECT_EQ(joined, "<|begin|>The harbour");
  EXPECT_EQ(Post("/tokenize", {{"prompt", "The harbour"}, {"add_special_tokens", false}})->json()["tokens"],
            Json(bare));
  EXPECT_EQ(Post("/tokenize", {{"content", "The harbour"}})->json()["tokens"], Json(bare));
  EXPECT_EQ(Post("/tokenize", {{"content", "The harbour"}, {"add_special", true}})->json()["tokens"], Json(special));
  answer = Post("/tokenize", {{"content", "The harbour"}, {"with_pieces", true}})->json();
  EXPECT_EQ(answer["tokens"][0]["id"], bare[0]);
  EXPECT_EQ(answer["tokens"].back()["piece"].get<std::string>().back(), 'r');
  const Json said = {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}};
  EXPECT_EQ(Post("/tokenize", said)->json()["tokens"], Json(tokenizer().Encode("user: Hi\nassistant:", false)));
  Json wrong = said;
  wrong["add_special_tokens"] = "yes";
  EXPECT_EQ(Post("/tokenize", wrong)->status(), 400);

  answer = Post("/detokenize", {{"tokens", special}})->json();
  EXPECT_EQ(answer["prompt"], "<|begin|>The harbour");
  EXPECT_EQ(answer["content"], answer["prompt"]);
}

}  // namespace
}  // namespace runahead::protocol
