// What clients are told when an engine fails, and when it takes no more.
#include <stdexcept>

#include "engine/conductor.h"
#include "engine/engine_state.h"
#include "protocol/api_error.h"
#include "protocol/request_fields.h"
#include "tests/protocol/fixture.h"

namespace runahead::protocol {
namespace {

class FailuresTest : public ApiTest {
 protected:
  /// An API on an engine of its own.
  std::unique_ptr<Api> NewApiOn(EngineOptions options) {
    options.threads_per_rank = 1;
    own_ = std::make_unique<Engine>(Engine::Load(ModelFolder(), options));
    return std::make_unique<Api>(*own_, Model(ModelFolder()), std::make_shared<const Tokenizer>(tokenizer()), nullptr,
                                 ApiOptions{"demo", "", ""});
  }
  void Break() {
    StateOf(*own_)->conductor().Tell([] { throw std::runtime_error("out of luck"); });
  }
  /// A body that runs for long.
  static Json Endless(bool stream) {
    return {{"prompt", "Ships"}, {"max_tokens", kContext}, {"ignore_eos", true}, {"stream", stream}};
  }

 private:
  std::unique_ptr<Engine> own_;
};

TEST_F(FailuresTest, AStreamThatIsCutEndsWithAnErrorAndBroken) {
  api_ = NewApiOn({});
  const Asking asking = Start("POST", "/v1/completions", Endless(true).dump());
  asking.answer->AwaitWrites(3);
  Break();
  asking.answer->AwaitEnd();
  EXPECT_TRUE(asking.answer->broken());
  const std::vector<Json> events = asking.answer->events(/*whole=*/false);
  EXPECT_GE(events.size(), 4U);
  EXPECT_EQ(events.back()["error"]["message"], "out of luck");
  EXPECT_EQ(events.back()["error"]["type"], "server_error");
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    EXPECT_TRUE(events[i]["choices"][0]["finish_reason"].is_null()) << "no event says that it is complete";
  }
}

TEST_F(FailuresTest, AWholeAnswerBecomesAnErrorAndLaterOnesAreRefused) {
  api_ = NewApiOn({});
  const Asking asking = Start("POST", "/v1/completions", Endless(false).dump());
  Break();
  asking.answer->AwaitEnd();
  EXPECT_EQ(asking.answer->status(), 500);
  EXPECT_EQ(asking.answer->json()["error"]["message"], "out of luck");
  const Json state = Json::parse(api_->StateJson());
  EXPECT_EQ(state["healthy"], false);
  EXPECT_EQ(state["failure"], "out of luck");
  for (const bool stream : {false, true}) {
    const auto later = Post("/v1/completions", Endless(stream));
    EXPECT_EQ(later->status(), 503);
    EXPECT_FALSE(later->streamed());
    EXPECT_EQ(later->json()["error"]["code"], "engine_failed");
  }
}

TEST_F(FailuresTest, AFullQueueSaysWhenToComeAgain) {
  EngineOptions options;
  options.max_queued = 1;
  options.kv_memory = size_t{2} << 20;
  api_ = NewApiOn(options);
  const Json body = {
      {"prompt", std::vector<std::string>(40, LongText("crab", 20))}, {"max_tokens", 50}, {"stream", true}};
  const auto answer = Post("/v1/completions", body);
  EXPECT_EQ(answer->status(), 429) << answer->body();
  EXPECT_FALSE(answer->streamed());
  EXPECT_EQ(answer->json()["error"]["code"], "queue_full");
  EXPECT_EQ(answer->json()["error"]["type"], "rate_limit_error");
  EXPECT_GE(std::stoi(answer->Field("retry-after")), 1);
  const Json few = {{"prompt", "Ships"}, {"max_tokens", 2}, {"priority", 1}};
  int tries = 0;  // those that were taken before are cancelled, which takes a step
  while (Post("/v1/completions", few)->status() == 429) ASSERT_LT(++tries, 100'000);
}

TEST(ApiErrorTest, ExceptionsHaveTheirStatus) {
  const auto of = [](const auto& thrown) { return AsApiError(thrown); };
  EXPECT_EQ(of(ConfigError("x")).status(), 400);
  EXPECT_EQ(of(FieldError("top_k", "x")).param(), "top_k");
  EXPECT_EQ(of(ContextError("prompt", "x")).code(), "context_length_exceeded");
  EXPECT_EQ(of(DeviceError("x")).status(), 503);
  EXPECT_EQ(of(LinkError("x")).status(), 503);
  EXPECT_EQ(of(std::runtime_error("x")).status(), 500);
  EXPECT_EQ(of(ApiError(415, "x", "y")).status(), 415);

  const auto refused = [&](RefusedError::Reason reason, double seconds) {
    const ApiError error = of(RefusedError(reason, seconds, "x"));
    EXPECT_EQ(error.status(), 429);
    return error.code() +
           (error.fields().empty() ? "" : " " + error.fields()[0].name + " " + error.fields()[0].value);
  };
  EXPECT_EQ(refused(RefusedError::Reason::kQueueFull, 2.1), "queue_full retry-after 3");
  EXPECT_EQ(refused(RefusedError::Reason::kQueueFull, 0), "queue_full retry-after 1");
  EXPECT_EQ(refused(RefusedError::Reason::kDeadline, 12), "deadline retry-after 12");
  EXPECT_EQ(refused(RefusedError::Reason::kDeadline, 0), "deadline");
}

TEST(ApiErrorTest, MessagesAreAlwaysUtf8) {
  const Json json = Json::parse(ErrorBody(ApiError(400, "cut \xE2\x82", "", "")));
  EXPECT_EQ(json["error"]["message"], "cut \xEF\xBF\xBD");
  EXPECT_TRUE(json["error"]["param"].is_null());
}

}  // namespace
}  // namespace runahead::protocol
