// Sessions: what they refuse, and how they fail and recover when a rank is lost.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <map>

#include "engine/engine_state.h"
#include "engine/session_state.h"
#include "link/fault/fault_fabric.h"
#include "link/local/local_fabric.h"
#include "runahead/error.h"
#include "tests/engine/tiny_model.h"
#include "worker/sampler.h"

namespace runahead {
namespace {

std::shared_ptr<EngineState> LoadTiny(const std::string& devices, double timeout_s = 60) {
  EngineOptions options;
  options.devices = devices;
  options.threads_per_rank = 1;
  options.dtype = "f32";
  options.timeout_s = timeout_s;
  return LoadEngineState(TinyModelFolder(), options);
}

template <typename Exception, typename Function>
std::string MessageOf(Function&& function) {
  try {
    function();
  } catch (const Exception& error) {
    return error.what();
  }
  return "nothing of this type was thrown";
}

const std::vector<int32_t> kPrompt{5, 6, 7, 8, 9, 10, 11, 12, 13};

TEST(Session, RefusesBadPromptsByValue) {
  SessionState session(LoadTiny("cpu:2"), 10);
  const auto refusal = [&](const std::vector<int32_t>& prompt, const PrefillOptions& options = {}) {
    return MessageOf<ConfigError>([&] { session.Prefill(prompt, options); });
  };
  EXPECT_EQ(refusal({}), "prompt: it has no tokens");
  EXPECT_EQ(refusal(std::vector<int32_t>(11, 1)), "prompt: 11 tokens do not fit the session's 10");
  EXPECT_EQ(refusal({1, -1}), "prompt: token id -1 at position 1 is outside the vocabulary of 512");
  EXPECT_EQ(refusal({512}), "prompt: token id 512 at position 0 is outside the vocabulary of 512");
  PrefillOptions options;
  options.ranks = 3;
  EXPECT_EQ(refusal(kPrompt, options), "ranks: expected 1 to 2, got 3");
  options.ranks = 0;
  options.partition = PartitionRequest::Parse("3,2,1");
  EXPECT_EQ(refusal(kPrompt, options), "partition: expected 2 fractions, one for each rank, got 3");
}

TEST(Session, StartsAnewWhereAllAnglesChange) {
  EngineOptions options;
  options.devices = "cpu:2";
  options.dtype = "f32";
  const auto engine = LoadEngineState(TinyModelFolder("tiny-phi3"), options);
  ASSERT_EQ(engine->decoder().spec().rope.short_positions, 256);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 254; ++i) tokens.push_back(i * 37 % 256);
  SessionState grown(engine, 270);
  grown.Prefill(tokens, {});
  for (int32_t next = 0; next < 6; ++next) {
    tokens.push_back(next);
    grown.Append(next);
    SessionState fresh(engine, 270);
    fresh.Prefill(tokens, {});
    ASSERT_EQ(grown.size(), fresh.size());
    double largest = 0;
    double difference = 0;
    for (size_t i = 0; i < fresh.logits().size(); ++i) {
      largest = std::max<double>(largest, std::abs(fresh.logits()[i]));
      difference = std::max<double>(difference, std::abs(fresh.logits()[i] - grown.logits()[i]));
    }
    EXPECT_LE(difference, 64 * UnitRoundoff(DType::kF32) * largest) << tokens.size() << " tokens";
  }
}

TEST(Session, NeedsAPromptBeforeItIsExtendedAndEndsAtItsCapacity) {
  SessionState session(LoadTiny("cpu"), 10);
  EXPECT_EQ(MessageOf<ConfigError>([&] { session.Append(1); }), "session: Append needs a prefilled prompt");
  session.Prefill(kPrompt, {});
  session.Append(1);
  EXPECT_EQ(session.size(), 10);
  EXPECT_EQ(MessageOf<ConfigError>([&] { session.Append(1); }), "session: all 10 tokens of its capacity are used");
}

TEST(Session, RefusesACapacityBeyondTheContext) {
  const auto engine = LoadTiny("cpu");
  EXPECT_THROW(SessionState(engine, 0), ConfigError);
  EXPECT_THROW(SessionState(engine, engine->decoder().spec().max_positions + 1), ConfigError);
}

TEST(Session, DecodesOnLikeAPrefillOfTheLongerPrompt) {
  const auto engine = LoadTiny("cpu:3");
  SessionState extended(engine, 32);
  extended.Prefill(std::span(kPrompt).first(4), {});
  for (const int32_t token : std::span(kPrompt).subspan(4)) extended.Append(token);
  SessionState whole(engine, 32);
  whole.Prefill(kPrompt, {});
  ASSERT_EQ(extended.logits().size(), whole.logits().size());
  for (size_t i = 0; i < whole.logits().size(); ++i) EXPECT_NEAR(extended.logits()[i], whole.logits()[i], 1e-4);
}

TEST(Session, GreedyTokensAreThoseOfTheLogits) {
  const auto engine = LoadTiny("cpu:2");
  SessionState by_logits(engine, 16);
  SessionState greedy(engine, 16);
  by_logits.Prefill(kPrompt, {});
  greedy.Prefill(kPrompt, {});
  int32_t token = LikeliestToken(greedy.logits());
  while (greedy.size() < greedy.capacity()) {
    by_logits.Append(token);
    token = greedy.AppendGreedy(token, greedy.size() % 2 == 0);
    EXPECT_EQ(token, LikeliestToken(by_logits.logits())) << "behind " << greedy.size() << " tokens";
  }
  EXPECT_EQ(greedy.size(), by_logits.size());
  EXPECT_THROW(greedy.AppendGreedy(token, false), ConfigError);
}

TEST(Session, ALostRankBecomesOneErrorAndTheEngineRecovers) {
  const auto engine = LoadTiny("cpu:3", 0.2);
  for (const Topology topology : {Topology::kChain, Topology::kDirect}) {
    SessionState session(engine, 32);
    Faults faults;
    faults.lose_from = 1;
    faults.lose_layer = 1;
    engine->Hold().SetFabric(MakeFaultFabric(MakeLocalFabric(3), faults));
    PrefillOptions options;
    options.topology = topology;
    const std::string message = MessageOf<LinkError>([&] { session.Prefill(kPrompt, options); });
    EXPECT_TRUE(message.starts_with("rank 2: link 1 -> 2: layer 1 rows [")) << message;
    EXPECT_EQ(session.size(), 0);
    session.Prefill(kPrompt, options);
    EXPECT_EQ(session.size(), 9);
  }
}

// Rank 0 would compute for minutes when rank 1 has given up on its rows.
TEST(Session, AnErrorDoesNotWaitForASlowRank) {
  EngineOptions options;
  options.devices = "cpu:2";
  options.threads_per_rank = 1;
  options.dtype = "f32";
  options.timeout_s = 0.01;
  options.slowdown_of_rank = {1000, 1};
  SessionState session(LoadEngineState(TinyModelFolder(), options), 512);
  for (const char* partition : {"9,1", "1,1"}) {
    PrefillOptions prefill;
    prefill.partition = PartitionRequest::Parse(partition);
    const auto begin = Clock::now();
    const std::string message = MessageOf<LinkError>([&] { session.Prefill(std::vector<int32_t>(500, 7), prefill); });
    EXPECT_TRUE(message.starts_with("rank 1: link 0 -> 1: layer 0 rows [")) << message;
    EXPECT_LT(Clock::now() - begin, std::chrono::seconds(1));
  }
}

TEST(Session, RecordsATimelineOnRequest) {
  const auto engine = LoadTiny("cpu:2");
  SessionState session(engine, 32);
  EXPECT_TRUE(session.Prefill(kPrompt, {}).timeline.empty());
  PrefillOptions options;
  options.record_timeline = true;
  const PrefillReport report = session.Prefill(kPrompt, options);
  const size_t row_bytes = engine->decoder().spec().kv_shape(DType::kF32).BytesPerToken();
  std::map<Activity, size_t> bytes;
  for (const TimelineEvent& event : report.timeline) {
    EXPECT_LE(0, event.begin_ms);
    EXPECT_LE(event.begin_ms, event.end_ms);
    EXPECT_LE(event.end_ms, report.ttft_ms);
    bytes[event.activity] += event.bytes;
  }
  for (const Activity activity : {Activity::kSend, Activity::kReceive, Activity::kWait}) {
    EXPECT_EQ(bytes[activity], static_cast<size_t>(report.cuts[1]) * row_bytes) << Name(activity);
  }
}

}  // namespace
}  // namespace runahead
