// /v1/completions: what it answers is what the engine generates, whole and as a stream.
#include <fmt/format.h>

#include <algorithm>

#include "runahead/generate.h"
#include "tests/protocol/fixture.h"

namespace runahead::protocol {
namespace {

constexpr const char* kPath = "/v1/completions";

class CompletionsTest : public ApiTest {
 protected:
  /// What `generate` gives, with the options of a request.
  static Generation Generated(const std::string& prompt, int tokens, const SamplingOptions& sampling,
                              const std::vector<std::string>& stop = {}) {
    const std::vector<int32_t> ids = tokenizer().Encode(prompt);
    Session session = engine().NewSession(static_cast<int64_t>(ids.size()) + tokens);
    GenerationOptions options;
    options.max_new_tokens = tokens;
    options.sampling = sampling;
    options.stop = stop;
    options.eos = EndTokens(Model(ModelFolder()), &tokenizer());
    return Generate(session, &tokenizer(), ids, {}, options);
  }

  /// The text of choice `index` of a stream.
  static std::string TextOf(const std::vector<Json>& events, int index = 0) {
    std::string text;
    for (const Json& event : events) {
      for (const Json& choice : event["choices"]) {
        if (choice["index"] == index) text += choice["text"].get<std::string>();
      }
    }
    return text;
  }
};

TEST_F(CompletionsTest, AnswersInTheFormOfTheApi) {
  const auto answer = Post(kPath, {{"prompt", "The harbour"}, {"max_tokens", 3}, {"temperature", 0}});
  EXPECT_EQ(answer->status(), 200);
  EXPECT_EQ(answer->Field("content-type"), "application/json");
  EXPECT_FALSE(answer->Field("x-runahead-ttft-ms").empty());
  EXPECT_FALSE(answer->Field("x-runahead-ranks").empty());
  EXPECT_TRUE(answer->Field("x-runahead-cuts").find(',') != std::string::npos) << answer->Field("x-runahead-cuts");
  EXPECT_EQ(answer->Field("x-runahead-rounds"), "1");
  const Json json = answer->json();
  EXPECT_TRUE(json["id"].get<std::string>().starts_with("cmpl-"));
  EXPECT_EQ(json["object"], "text_completion");
  EXPECT_EQ(json["model"], "demo");
  EXPECT_GT(json["created"].get<int64_t>(), 1'700'000'000);
  EXPECT_TRUE(json["system_fingerprint"].get<std::string>().starts_with("runahead-"));
  ASSERT_EQ(json["choices"].size(), 1U);
  EXPECT_EQ(json["choices"][0]["index"], 0);
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
  EXPECT_TRUE(json["choices"][0]["logprobs"].is_null());
  const auto tokens = tokenizer().Encode("The harbour").size();
  EXPECT_EQ(json["usage"]["prompt_tokens"], tokens);
  EXPECT_EQ(json["usage"]["completion_tokens"], 3);
  EXPECT_EQ(json["usage"]["total_tokens"], tokens + 3);
  EXPECT_EQ(json["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
  EXPECT_GT(json["runahead"]["ttft_ms"].get<double>(), 0);
  EXPECT_EQ(json["runahead"]["cached_tokens"], 0);
  EXPECT_FALSE(json["runahead"]["members"].empty());
}

TEST_F(CompletionsTest, GivesWhatGenerateGives) {
  const std::string prompt = "The keeper of the harbour wrote this down.";
  SamplingOptions sampling;
  EXPECT_EQ(Complete({{"prompt", prompt}, {"max_tokens", 20}, {"temperature", 0}})["choices"][0]["text"],
            Generated(prompt, 20, sampling).text);
  sampling = {.temperature = 1.5,
              .top_k = 50,
              .top_p = 0.9,
              .seed = 11,
              .min_p = 0.01,
              .repetition_penalty = 1.2,
              .presence_penalty = 0.3,
              .frequency_penalty = -0.2};
  const Json body = {{"prompt", prompt},
                     {"max_tokens", 20},
                     {"temperature", 1.5},
                     {"top_k", 50},
                     {"top_p", 0.9},
                     {"seed", 11},
                     {"min_p", 0.01},
                     {"repetition_penalty", 1.2},
                     {"presence_penalty", 0.3},
                     {"frequency_penalty", -0.2}};
  const std::string drawn = Generated(prompt, 20, sampling).text;
  EXPECT_EQ(Complete(body)["choices"][0]["text"], drawn);
  EXPECT_EQ(TextOf(Stream(kPath, body)), drawn);
}

TEST_F(CompletionsTest, StreamsWhatItAnswersWhole) {
  const Json body = {{"prompt", "Ships"}, {"max_tokens", 12}, {"temperature", 1}, {"seed", 5}};
  const Json whole = Complete(body);
  const std::vector<Json> events = Stream(kPath, body);
  EXPECT_EQ(whole["choices"][0]["text"], TextOf(events));
  for (const Json& event : events) {
    EXPECT_EQ(event["object"], "text_completion");
    EXPECT_EQ(event["id"], events[0]["id"]);
    EXPECT_EQ(event["choices"].size(), 1U);
    EXPECT_FALSE(event.contains("usage"));
    EXPECT_EQ(event["choices"][0]["finish_reason"].is_null(), &event != &events.back());
  }
  EXPECT_EQ(events.back()["choices"][0]["finish_reason"], whole["choices"][0]["finish_reason"]);
  EXPECT_GT(events.back()["runahead"]["ttft_ms"].get<double>(), 0);
}

TEST_F(CompletionsTest, StreamsEndWithTheUsageWhereWanted) {
  Json body = {
      {"prompt", "Ships"}, {"max_tokens", 4}, {"temperature", 0}, {"stream_options", {{"include_usage", true}}}};
  std::vector<Json> events = Stream(kPath, body);
  EXPECT_TRUE(events.back()["choices"].empty());
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], 4);
  EXPECT_TRUE(events.back()["usage"]["prompt_tokens_details"].contains("cached_tokens"));
  EXPECT_TRUE(events.back().contains("runahead"));
  for (size_t i = 0; i + 1 < events.size(); ++i) EXPECT_TRUE(events[i].at("usage").is_null());
  body["stream_options"]["continuous_usage_stats"] = true;
  events = Stream(kPath, body);
  EXPECT_EQ(events[0]["usage"]["completion_tokens"], 1);
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], 4);
}

TEST_F(CompletionsTest, SeveralPromptsAndChoicesComeInOrder) {
  const std::vector<std::string> prompts = {"Ships", "The crane", "At noon"};
  const Json body = {{"prompt", prompts}, {"n", 2}, {"seed", 3}, {"max_tokens", 6}};
  const Json together = Complete(body);
  ASSERT_EQ(together["choices"].size(), 6U);
  const std::vector<Json> events = Stream(kPath, body);
  int64_t tokens = 0;
  for (int i = 0; i < 6; ++i) {
    SamplingOptions sampling;
    sampling.temperature = 1;
    sampling.seed = static_cast<uint64_t>(3 + i % 2);
    const Generation alone = Generated(prompts[static_cast<size_t>(i / 2)], 6, sampling);
    EXPECT_EQ(together["choices"][static_cast<size_t>(i)]["index"], i);
    EXPECT_EQ(together["choices"][static_cast<size_t>(i)]["text"], alone.text) << i;
    EXPECT_EQ(TextOf(events, i), alone.text) << i;
    tokens += static_cast<int64_t>(alone.ids.size());
  }
  EXPECT_EQ(together["usage"]["completion_tokens"], tokens);
  size_t prompt_tokens = 0;
  for (const std::string& prompt : prompts) prompt_tokens += tokenizer().Encode(prompt).size();
  EXPECT_EQ(together["usage"]["prompt_tokens"], prompt_tokens);

  std::vector<std::vector<int32_t>> ids;
  for (const std::string& prompt : prompts) ids.push_back(tokenizer().Encode(prompt));
  Json by_ids = body;
  by_ids["prompt"] = ids;
  const Json answer = Complete(by_ids);
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(answer["choices"][i]["text"], together["choices"][i]["text"]);
  by_ids["prompt"] = ids[0];
  EXPECT_EQ(Complete(by_ids)["choices"][1]["text"], together["choices"][1]["text"]);
}

TEST_F(CompletionsTest, DrawsASeedUnlessTold) {
  const auto text = [&](const Json& seed) {
    Json body = {{"prompt", "Ships"}, {"max_tokens", 20}, {"temperature", 2}};
    if (!seed.is_null()) body["seed"] = seed;
    return Complete(body)["choices"][0]["text"].get<std::string>();
  };
  EXPECT_EQ(text(7), text(7));
  EXPECT_NE(text({}), text({}));
  EXPECT_NE(text(-1), text(-1));
}

TEST_F(CompletionsTest, StopsAtTextsAndIds) {
  const std::string prompt = "The keeper of the harbour wrote this down.";
  const std::string free = Generated(prompt, 20, {}).text;
  ASSERT_GT(free.size(), 12U);
  const std::string stop = free.substr(8, 3);
  const std::string cut = free.substr(0, free.find(stop));
  for (const Json& wanted : {Json(stop), Json({"never said", stop})}) {
    const Json body = {{"prompt", prompt}, {"max_tokens", 20}, {"temperature", 0}, {"stop", wanted}};
    const Json answer = Complete(body);
    EXPECT_EQ(answer["choices"][0]["text"], cut);
    EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
    const std::vector<Json> events = Stream(kPath, body);
    EXPECT_EQ(TextOf(events), cut);
    EXPECT_EQ(events.back()["choices"][0]["finish_reason"], "stop");
  }
  const int32_t third = Generated(prompt, 3, {}).ids[2];
  const Json by_id =
      Complete({{"prompt", prompt}, {"max_tokens", 20}, {"temperature", 0}, {"stop_token_ids", {third}}});
  EXPECT_EQ(by_id["choices"][0]["finish_reason"], "stop");
  EXPECT_LE(by_id["usage"]["completion_tokens"].get<int>(), 2);
}

TEST_F(CompletionsTest, EchoesItsPrompt) {
  const Json plain = {{"prompt", "Ships came"}, {"max_tokens", 4}, {"temperature", 0}};
  const std::string text = Complete(plain)["choices"][0]["text"];
  Json body = plain;
  body["echo"] = true;
  EXPECT_EQ(Complete(body)["choices"][0]["text"], "Ships came" + text);
  EXPECT_EQ(TextOf(Stream(kPath, body)), "Ships came" + text);
  body["prompt"] = tokenizer().Encode("Ships came");
  EXPECT_EQ(Complete(body)["choices"][0]["text"], "Ships came" + text);
}

TEST_F(CompletionsTest, BiasMovesTheDraw) {
  const int32_t wanted = tokenizer().Encode("x", false).back();
  const Json answer = Complete(
      {{"prompt", "Ships"}, {"max_tokens", 3}, {"temperature", 0}, {"logit_bias", {{std::to_string(wanted), 100}}}});
  EXPECT_EQ(answer["choices"][0]["text"], tokenizer().Decode(std::vector<int32_t>(3, wanted)));
}

TEST_F(CompletionsTest, ReportsLogprobs) {
  const Json body = {{"prompt", "Ships came"}, {"max_tokens", 5}, {"temperature", 1}, {"seed", 2}, {"logprobs", 2}};
  const Json choice = Complete(body)["choices"][0];
  const Json& logprobs = choice["logprobs"];
  const size_t count = logprobs["tokens"].size();
  EXPECT_EQ(count, 5U);
  std::string joined;
  for (size_t i = 0; i < count; ++i) {
    EXPECT_EQ(logprobs["text_offset"][i], joined.size());
    joined += logprobs["tokens"][i].get<std::string>();
    EXPECT_LE(logprobs["token_logprobs"][i].get<double>(), 0);
    const Json& top = logprobs["top_logprobs"][i];
    EXPECT_GE(top.size(), 2U);
    EXPECT_LE(top.size(), 3U);
    EXPECT_EQ(top[logprobs["tokens"][i].get<std::string>()], logprobs["token_logprobs"][i]);
  }
  EXPECT_EQ(choice["text"], joined);

  Json streamed;
  for (const Json& event : Stream(kPath, body)) {
    const Json& part = event["choices"][0]["logprobs"];
    if (part.is_null()) continue;
    for (const auto& [name, list] : part.items()) {
      for (const Json& entry : list) streamed[name].push_back(entry);
    }
  }
  EXPECT_EQ(streamed, logprobs);
  Json none = body;
  none["logprobs"] = 0;
  EXPECT_EQ(Complete(none)["choices"][0]["logprobs"]["top_logprobs"][0].size(), 1U);
}

TEST_F(CompletionsTest, TellsWhatWasCached) {
  const Json body = {{"prompt", LongText("gull", 60)}, {"max_tokens", 1}, {"temperature", 0}};
  const Json first = Complete(body);
  const Json second = Complete(body);
  EXPECT_LT(first["usage"]["prompt_tokens_details"]["cached_tokens"], 10);  // how other prompts begin
  const int cached = second["usage"]["prompt_tokens_details"]["cached_tokens"];
  EXPECT_GT(cached, 500);
  EXPECT_EQ(second["runahead"]["cached_tokens"], cached);
  EXPECT_EQ(first["choices"][0]["text"], second["choices"][0]["text"]);
}

TEST_F(CompletionsTest, TellsHowFarThePromptIs) {
  const Json body = {{"prompt", LongText("seal", 120)}, {"max_tokens", 2}, {"return_progress", true}};
  const std::vector<Json> events = Stream(kPath, body);
  int64_t before = -1;
  int seen = 0;
  bool answering = false;
  for (const Json& event : events) {
    if (!event.contains("prompt_progress")) {
      answering = true;
      continue;
    }
    EXPECT_FALSE(answering) << "progress behind the first token";
    const Json& progress = event["prompt_progress"];
    EXPECT_EQ(progress["total"], tokenizer().Encode(body["prompt"].get<std::string>()).size());
    EXPECT_GE(progress["processed"].get<int64_t>(), std::max(before, progress["cache"].get<int64_t>()));
    EXPECT_GE(progress["time_ms"].get<double>(), 0);
    EXPECT_TRUE(progress.contains("predicted_left_ms"));
    EXPECT_EQ(event["choices"][0]["text"], "");
    before = progress["processed"];
    ++seen;
  }
  EXPECT_GE(seen, 2);
  Json silent = body;
  silent.erase("return_progress");
  for (const Json& event : Stream(kPath, silent)) EXPECT_FALSE(event.contains("prompt_progress"));
}

TEST_F(CompletionsTest, ACallThatIsDestroyedIsCancelled) {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<EndedRequest> ended;
  api_ = NewApi([&](const EndedRequest& request) {
    const std::lock_guard lock(mutex);
    ended.push_back(request);
    changed.notify_all();
  });
  const Json body = {{"prompt", "Ships"}, {"max_tokens", kContext}, {"ignore_eos", true}, {"stream", true}, {"n", 2}};
  Asking asking = Start("POST", kPath, body.dump());
  asking.answer->AwaitWrites(3);
  const Json state = Json::parse(api_->StateJson());
  ASSERT_EQ(state["requests"].size(), 2U);
  EXPECT_TRUE(state["requests"][0]["id"].get<std::string>().ends_with("[0]"));
  asking.call.reset();
  std::unique_lock lock(mutex);
  ASSERT_TRUE(changed.wait_for(lock, std::chrono::minutes(1), [&] { return ended.size() == 2; }));
  for (const EndedRequest& request : ended) EXPECT_EQ(request.finish, FinishReason::kCancelled);
}

TEST_F(CompletionsTest, ADeadlineThatCannotBeReadIsRefused) {
  for (const char* wrong : {"", "x", "-5", "0", "1e99", "5 ms"}) {
    const auto answer =
        Ask("POST", kPath, R"({"prompt": "a", "max_tokens": 1})", {{"x-runahead-deadline-ms", wrong}});
    EXPECT_EQ(answer->status(), 400) << wrong;
    EXPECT_EQ(answer->json()["error"]["param"], "x-runahead-deadline-ms");
  }
  EXPECT_EQ(
      Ask("POST", kPath, R"({"prompt": "a", "max_tokens": 1})", {{"x-runahead-deadline-ms", "60000"}})->status(),
      200);
}

TEST_F(CompletionsTest, TheStateKnowsWhatRanLately) {
  const Json before = Json::parse(api_->StateJson())["totals"];
  const Json first = Complete({{"prompt", "Ships"}, {"max_tokens", 2}, {"ignore_eos", true}});
  const Json second = Complete({{"prompt", "Boats"}, {"max_tokens", 3}, {"ignore_eos", true}});
  Json state = Ask("GET", "/runahead/state")->json();
  ASSERT_EQ(state["recent"].size(), 2U);
  EXPECT_EQ(state["recent"][0]["id"], second["id"]);
  EXPECT_EQ(state["recent"][1]["id"], first["id"]);
  EXPECT_EQ(state["recent"][0]["new_tokens"], 3);
  EXPECT_EQ(state["recent"][0]["finish"], "length");
  EXPECT_TRUE(state["requests"].empty());
  EXPECT_FALSE(state["recent"][0]["timeline"].empty());
  EXPECT_EQ(state["model"], "demo");
  EXPECT_EQ(state["chat"], true);
  EXPECT_EQ(state["healthy"], true);
  EXPECT_EQ(state["failure"], "");
  EXPECT_GT(state["uptime_s"].get<double>(), 0);
  ASSERT_EQ(state["ranks"].size(), 2U);
  EXPECT_EQ(state["ranks"][0]["device"], "cpu");
  EXPECT_TRUE(state["ranks"][0].contains("bytes_sent"));
  EXPECT_EQ(state["waiting"], 0);
  EXPECT_EQ(state["totals"]["new_tokens"], before["new_tokens"].get<int>() + 5);
  EXPECT_GT(state["ranks"][0]["pages"], 0);
  EXPECT_EQ(state["ranks"][0]["doing"], "idle");
  for (const Json& ended : state["recent"]) {
    ASSERT_FALSE(ended["timeline"].empty());
    EXPECT_EQ(ended["timeline"][0]["kind"], "compute");
  }
  EXPECT_EQ(Json::parse(api_->StateJson())["recent"], state["recent"]);
  state = Ask("GET", "/runahead/state?known=" + first["id"].get<std::string>())->json();
  ASSERT_EQ(state["recent"].size(), 1U);
  EXPECT_EQ(state["recent"][0]["id"], second["id"]);
}

}  // namespace
}  // namespace runahead::protocol
