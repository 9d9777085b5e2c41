// Requests by the public API: their events, by a handle and by a sink, and what an engine refuses.
#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <thread>

#include "base/source_dir.h"
#include "runahead/engine.h"
#include "runahead/request.h"
#include "tests/engine/tiny_model.h"

namespace runahead {
namespace {

using Kind = RequestEvent::Kind;

Engine LoadTiny(EngineOptions options = {}) {
  if (options.devices == "cpu") options.devices = "cpu:2";
  options.threads_per_rank = 1;
  return Engine::Load(TinyModelFolder(), options);
}

Request Prompt(int tokens, int answer) {
  Request request;
  for (int i = 0; i < tokens; ++i) request.prompt.push_back(i * 7 % 251);
  request.generation.max_new_tokens = answer;
  return request;
}

std::vector<RequestEvent> AllOf(RequestHandle handle) {
  std::vector<RequestEvent> events;
  while (events.empty() || events.back().kind != Kind::kEnd) {
    std::optional<RequestEvent> event = handle.Next(std::chrono::minutes(1));
    if (!event) throw std::runtime_error("a request gave nothing for a minute");
    events.push_back(*std::move(event));
  }
  return events;
}

/// What a sink was told. Thread-safe.
class Told {
 public:
  explicit Told(int choices = 1) : left_(choices) {}
  void operator()(RequestEvent event) {
    const std::lock_guard lock(mutex_);
    left_ -= event.kind == Kind::kEnd ? 1 : 0;
    events_.push_back(std::move(event));
    changed_.notify_all();
  }
  /// Waits until there are `count`, or for the end.
  std::vector<RequestEvent> Await(size_t count = SIZE_MAX) {
    std::unique_lock lock(mutex_);
    const bool came =
        changed_.wait_for(lock, std::chrono::minutes(1), [&] { return events_.size() >= count || left_ == 0; });
    if (!came) throw std::runtime_error("a sink was told nothing for a minute");
    return events_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<RequestEvent> events_;  // guarded by mutex_
  int left_;                          // choices that have not ended, guarded by mutex_
};

EventSink SinkOf(std::shared_ptr<Told> told) {
  return [told = std::move(told)](RequestEvent event) { (*told)(std::move(event)); };
}

std::vector<int32_t> IdsOf(const std::vector<RequestEvent>& events) {
  std::vector<int32_t> ids;
  for (const RequestEvent& event : events) {
    if (event.kind == Kind::kToken) ids.push_back(event.token.id);
  }
  return ids;
}

TEST(RequestsTest, ASinkIsToldWhatAHandleGives) {
  const Engine engine = LoadTiny();
  const std::vector<RequestEvent> by_handle = AllOf(engine.Submit(Prompt(100, 8)));
  const auto told = std::make_shared<Told>();
  RequestHandle handle = engine.Submit(Prompt(100, 8), nullptr, SinkOf(told));
  const std::vector<RequestEvent> by_sink = told->Await();
  EXPECT_EQ(IdsOf(by_sink), IdsOf(by_handle));
  EXPECT_EQ(by_sink.back().stats.new_tokens, 8);
  EXPECT_THROW((void)handle.Next(std::chrono::milliseconds(1)), ConfigError);
  EXPECT_THROW((void)engine.Submit(Prompt(1, 1), nullptr, EventSink()), ConfigError);
}

// Whatever a model knows positions by: rotations, a table, biases.
TEST(RequestsTest, EveryFamilyAnswersAsASession) {
  const std::vector<int32_t> prompt = {3, 4, 5, 6, 7};
  constexpr int kNew = 3;
  int families = 0;
  for (const auto& golden :
       std::filesystem::directory_iterator(std::filesystem::path(SourceDir()) / "tests" / "model" / "goldens")) {
    EngineOptions options;
    options.devices = "cpu:2";
    options.threads_per_rank = 1;
    const Engine engine = Engine::Load(golden.path(), options);
    Request request;
    request.prompt = prompt;
    request.generation.max_new_tokens = kNew;
    Session session = engine.NewSession(static_cast<int64_t>(prompt.size()) + kNew);
    const Generation alone = Generate(session, nullptr, prompt, {}, request.generation);
    EXPECT_EQ(IdsOf(AllOf(engine.Submit(std::move(request)))), alone.ids) << golden.path();
    ++families;
  }
  EXPECT_GT(families, 50);
}

TEST(RequestsTest, ProgressIsToldFromTheBeginningOn) {
  const Engine engine = LoadTiny();
  for (const int cached : {0, 399}) {
    Request request = Prompt(400, 2);
    request.prefill.ranks = cached == 0 ? 2 : 0;
    const std::vector<RequestEvent> events = AllOf(engine.Submit(std::move(request)));
    ASSERT_GE(events.size(), 5U);
    EXPECT_EQ(events[0].kind, Kind::kProgress);
    EXPECT_EQ(events[0].prompt_done, cached);
    EXPECT_EQ(events[0].cached_tokens, cached);
    EXPECT_EQ(events[0].prompt_total, 400);
    EXPECT_EQ(events[0].members.size(), cached == 0 ? 2U : 1U);
    const RequestEvent& last = events[events.size() - 4];
    EXPECT_EQ(last.kind, Kind::kProgress);
    EXPECT_EQ(last.prompt_done, 400);
    EXPECT_EQ(last.members, events[0].members);
    EXPECT_EQ(events.back().stats.cached_tokens, cached);
  }
}

TEST(RequestsTest, TheTimeToTheFirstTokenIsPredictedOnceOneWasSeen) {
  const Engine engine = LoadTiny();
  RequestHandle first = engine.Submit(Prompt(200, 1));
  EXPECT_EQ(first.predicted_ttft_ms(), 0);
  AllOf(std::move(first));
  EXPECT_GT(engine.Submit(Prompt(300, 1)).predicted_ttft_ms(), 0);
}

// Several answers to one prompt: each as that of a request with its seed, and the prompt is counted once.
TEST(RequestsTest, ChoicesShareThePromptAndDifferByTheirSeeds) {
  const Engine engine = LoadTiny();
  constexpr int kChoices = 3;
  for (const int tokens : {1, 90, 400}) {
    for (const int ranks : {0, 2}) {
      if (tokens < ranks) continue;
      Request request = Prompt(tokens, 12);
      request.generation.sampling.temperature = 1.5;
      request.generation.sampling.seed = 7;
      request.prefill.ranks = ranks;
      request.reuse_prefix = false;
      request.choices = kChoices;
      RequestHandle handle = engine.Submit(request);
      std::vector<std::vector<RequestEvent>> of_choice(kChoices);
      for (int left = kChoices; left > 0;) {
        std::optional<RequestEvent> event = handle.Next(std::chrono::minutes(1));
        ASSERT_TRUE(event);
        left -= event->kind == Kind::kEnd ? 1 : 0;
        std::vector<RequestEvent>& events = of_choice.at(static_cast<size_t>(event->choice));
        events.push_back(*std::move(event));
      }
      EXPECT_THROW((void)handle.Next(std::chrono::milliseconds(1)), ConfigError);
      request.choices = 1;
      std::set<std::vector<int32_t>> different;
      for (const std::vector<RequestEvent>& events : of_choice) {
        EXPECT_EQ(IdsOf(events), IdsOf(AllOf(engine.Submit(request)))) << "seed " << request.generation.sampling.seed;
        EXPECT_EQ(events.back().finish, FinishReason::kLength);
        EXPECT_EQ(events.back().stats.prompt_tokens, &events == &of_choice[0] ? tokens : 0);
        EXPECT_EQ(events.back().stats.cached_tokens, 0);
        different.insert(IdsOf(events));
        ++request.generation.sampling.seed;
      }
      EXPECT_EQ(different.size(), of_choice.size());
    }
  }
  while (engine.Status().running > 0) std::this_thread::yield();  // what is published follows what is told
  EXPECT_EQ(engine.Status().ranks[0].pages_used + engine.Status().ranks[1].pages_used, 0);
}

TEST(RequestsTest, ACancelEndsAllChoicesWhereverTheyAre) {
  const Engine engine = LoadTiny();
  for (const size_t after : {size_t{0}, size_t{1}, size_t{6}}) {
    const auto told = std::make_shared<Told>(4);
    Request request = Prompt(700, 100'000);
    request.choices = 4;
    RequestHandle handle = engine.Submit(std::move(request), nullptr, SinkOf(told));
    (void)told->Await(after);
    handle.Cancel();
    int ends = 0;
    for (const RequestEvent& event : told->Await()) ends += event.finish == FinishReason::kCancelled ? 1 : 0;
    EXPECT_EQ(ends, 4);
  }
  Request none = Prompt(1, 1);
  none.choices = 0;
  EXPECT_THROW((void)engine.Submit(none), ConfigError);
}

TEST(RequestsTest, ASinkThatThrowsCancelsItsRequestAlone) {
  const Engine engine = LoadTiny();
  const auto other = std::make_shared<Told>();
  const RequestHandle goes_on = engine.Submit(Prompt(50, 40), nullptr, SinkOf(other));
  const auto told = std::make_shared<Told>();
  Request endless = Prompt(60, 100'000);
  const RequestHandle handle = engine.Submit(endless, nullptr, [told](RequestEvent event) {
    (*told)(event);
    if (event.kind == Kind::kToken) throw std::runtime_error("nobody listens");
  });
  EXPECT_EQ(IdsOf(other->Await()).size(), 40U);
  // Its pages are free again, and nothing of it runs: a session gets the engine.
  Session session = engine.NewSession(16);
  session.Prefill(std::vector<int32_t>{1, 2, 3});
  EXPECT_EQ(IdsOf(told->Await(1)).size(), 1U) << "it was told something behind the throw";
}

TEST(RequestsTest, AHandleThatGoesCancelsAndTheSinkIsToldTheEnd) {
  const Engine engine = LoadTiny();
  const auto told = std::make_shared<Told>();
  { const RequestHandle handle = engine.Submit(Prompt(50, 100'000), nullptr, SinkOf(told)); }
  EXPECT_EQ(told->Await().back().finish, FinishReason::kCancelled);
}

TEST(RequestsTest, WhatIsRefusedSaysWhy) {
  EngineOptions options;
  options.max_queued = 1;
  options.devices = "cpu:1";
  const ModelFacts facts = LoadTiny().facts();
  options.kv_memory = facts.kv_bytes_per_token * 3 * 128;  // room for one of the prompts
  const Engine engine = LoadTiny(options);
  std::vector<RequestHandle> taken;  // one runs, and one waits unless the first has ended meanwhile
  try {
    for (int i = 0; i < 1000; ++i) taken.push_back(engine.Submit(Prompt(257, 100)));
    ADD_FAILURE() << "any number waits";
  } catch (const RefusedError& error) {
    EXPECT_EQ(error.reason(), RefusedError::Reason::kQueueFull);
    EXPECT_EQ(std::string(error.what()), "queue: 1 requests wait already");
  }
}

TEST(RequestsTest, ADeadlineThatCannotBeMetIsRefusedAtOnce) {
  const Engine engine = LoadTiny();
  AllOf(engine.Submit(Prompt(300, 1)));
  Request late = Prompt(400, 1);
  late.ttft_deadline_s = 1e-9;
  late.reuse_prefix = false;
  try {
    (void)engine.Submit(std::move(late));
    ADD_FAILURE() << "it was taken";
  } catch (const RefusedError& error) {
    EXPECT_EQ(error.reason(), RefusedError::Reason::kDeadline);
    EXPECT_EQ(error.retry_after_s(), 0);
  }
  Request in_time = Prompt(400, 1);
  in_time.ttft_deadline_s = 1e6;
  EXPECT_EQ(AllOf(engine.Submit(std::move(in_time))).back().finish, FinishReason::kLength);
}

TEST(RequestsTest, TheStatusCountsWhatWasDone) {
  EngineOptions options;
  options.max_pause_ms = 0.5;
  const Engine engine = LoadTiny(options);
  EngineStatus status = engine.Status();
  ASSERT_EQ(status.ranks.size(), 2U);
  EXPECT_EQ(status.ranks[0].device, engine.devices()[0]);
  EXPECT_EQ(status.ranks[0].pages, 0);
  AllOf(engine.Submit(Prompt(300, 5)));
  constexpr int kTokens = 1500;
  Request together = Prompt(kTokens, 1);
  together.prefill.ranks = 2;
  together.reuse_prefix = false;
  const RequestStats stats = AllOf(engine.Submit(std::move(together))).back().stats;
  EXPECT_LT(stats.cuts.back(), kTokens) << "there was one round alone";
  EXPECT_GT(stats.rounds, 1);
  {
    const auto running = std::make_shared<Told>();
    RequestHandle handle = engine.Submit(Prompt(50, 100'000), nullptr, SinkOf(running));
    (void)running->Await(2);
    do {  // what is published follows what is told
      status = engine.Status();
    } while (status.running == 0);
    EXPECT_EQ(status.ranks[0].requests + status.ranks[1].requests, 1);
    EXPECT_GE(status.ranks[0].pages_used + status.ranks[1].pages_used, 1);
    handle.Cancel();
    (void)running->Await();
  }
  do {
    status = engine.Status();
  } while (status.running > 0);
  EXPECT_FALSE(status.failed);
  EXPECT_EQ(status.totals.requests, 3);
  EXPECT_EQ(status.totals.cancelled, 1);
  EXPECT_EQ(status.totals.failed, 0);
  EXPECT_EQ(status.totals.prompt_tokens, 300 + kTokens + 50);
  EXPECT_GE(status.totals.new_tokens, 6);
  int64_t bytes = 0;
  int64_t cached = 0;
  for (const RankStatus& rank : status.ranks) {
    EXPECT_EQ(rank.doing, RankActivity::kIdle);
    EXPECT_EQ(rank.pages_used, 0);
    EXPECT_LT(rank.pages_cached, rank.pages);
    cached += rank.pages_cached;
    EXPECT_GT(rank.busy_s, 0);
    EXPECT_LE(rank.wait_s, rank.busy_s);
    bytes += rank.bytes_sent;
  }
  EXPECT_GE(cached, (300 + kTokens) / status.page_tokens);
  // Between two ranks each row travels at most once, however many rounds there are.
  const auto row_bytes = static_cast<int64_t>(engine.facts().kv_bytes_per_token);
  EXPECT_LE(bytes, kTokens * row_bytes);
  EXPECT_GT(bytes, kTokens / 2 * row_bytes);
}

TEST(RequestsTest, ATimelineIsRecordedOnRequest) {
  const Engine engine = LoadTiny();
  EXPECT_TRUE(AllOf(engine.Submit(Prompt(300, 2))).back().stats.timeline.empty());
  for (const int ranks : {1, 2}) {
    Request request = Prompt(1500, 2);
    request.reuse_prefix = false;
    request.prefill.ranks = ranks;
    request.prefill.record_timeline = true;
    const RequestStats stats = AllOf(engine.Submit(std::move(request))).back().stats;
    std::set<Activity> activities;
    std::set<int> on;
    double compute_ms = 0;
    for (const TimelineEvent& event : stats.timeline) {
      EXPECT_GE(event.begin_ms, stats.queued_ms);
      EXPECT_LE(event.begin_ms, event.end_ms);
      EXPECT_LE(event.end_ms, stats.ttft_ms);
      EXPECT_TRUE(ranks == 2 || event.layer == TimelineEvent::kAllLayers);
      activities.insert(event.activity);
      on.insert(event.rank);
      if (event.activity == Activity::kCompute) compute_ms += event.end_ms - event.begin_ms;
    }
    EXPECT_EQ(on, std::set<int>(stats.members.begin(), stats.members.end()));
    EXPECT_EQ(activities.size(), ranks == 1 ? 1U : 4U);
    EXPECT_GT(compute_ms, 0);
  }
}

}  // namespace
}  // namespace runahead
