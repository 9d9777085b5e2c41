// What an engine does when its own thread meets an exception, and when links fail.
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <stdexcept>
#include <thread>

#include "engine/conductor.h"
#include "engine/engine_state.h"
#include "engine/group_links.h"
#include "link/fault/fault_fabric.h"
#include "link/local/local_fabric.h"
#include "runahead/request.h"
#include "tests/engine/tiny_model.h"

namespace runahead {
namespace {

Engine LoadTiny(double max_pause_ms = 200) {
  EngineOptions options;
  options.devices = "cpu:2";
  options.threads_per_rank = 1;
  options.max_pause_ms = max_pause_ms;
  return Engine::Load(TinyModelFolder(), options);
}

Request Prompt(int tokens, int answer) {
  Request request;
  for (int i = 0; i < tokens; ++i) request.prompt.push_back(i * 7 % 251);
  request.generation.max_new_tokens = answer;
  return request;
}

RequestEvent EndOf(RequestHandle& handle) {
  while (true) {
    std::optional<RequestEvent> event = handle.Next(std::chrono::minutes(1));
    if (!event) throw std::runtime_error("a request gave nothing for a minute");
    if (event->kind == RequestEvent::Kind::kEnd) return *std::move(event);
  }
}

std::string RefusalOf(const Engine& engine) {
  try {
    (void)engine.Submit(Prompt(1, 1));
  } catch (const DeviceError& error) {
    return error.what();
  }
  return "it was taken";
}

TEST(EngineFailureTest, AnExceptionEndsAllRequestsAndNotTheProcess) {
  const Engine engine = LoadTiny();
  std::vector<RequestHandle> handles;
  for (int i = 0; i < 6; ++i) {
    Request request = Prompt(300, 100'000);
    if (i % 2 == 0) request.prefill.ranks = 2;
    handles.push_back(engine.Submit(std::move(request)));
  }
  StateOf(engine)->conductor().Tell([] { throw std::runtime_error("out of luck"); });
  for (RequestHandle& handle : handles) {
    const RequestEvent end = EndOf(handle);
    EXPECT_EQ(end.finish, FinishReason::kError);
    EXPECT_EQ(end.error, "out of luck");
  }
  EXPECT_EQ(RefusalOf(engine), "engine: it has failed and takes no requests: out of luck");
  EXPECT_TRUE(engine.Status().failed);
  while (engine.Status().totals.failed < 6) std::this_thread::yield();  // counts follow what is told
  EXPECT_EQ(engine.Status().failure, "out of luck");
  EXPECT_EQ(engine.Status().totals.failed, 6);
  handles.front().Cancel();  // does nothing
  Session session = engine.NewSession(16);
  PrefillOptions over_all;
  over_all.ranks = 2;
  EXPECT_EQ(session.Prefill(std::vector<int32_t>{1, 2, 3, 4}, over_all).ranks(), 2) << "the ranks are free again";
}

TEST(EngineFailureTest, WhatWasAskedMeanwhileIsRefused) {
  const Engine engine = LoadTiny();
  Conductor& conductor = StateOf(engine)->conductor();
  // The thread is kept, so that the request can come to wait behind the failure.
  std::promise<void> go;
  conductor.Tell([&] { go.get_future().wait(); });
  conductor.Tell([] { throw std::runtime_error("out of luck"); });
  std::future<std::string> refusal = std::async(std::launch::async, [&] { return RefusalOf(engine); });
  go.set_value();
  EXPECT_EQ(refusal.get(), "engine: it has failed and takes no requests: out of luck");
}

TEST(EngineFailureTest, AFailedEngineGoesQuietly) {
  const auto engine = std::make_unique<Engine>(LoadTiny());
  RequestHandle handle = engine->Submit(Prompt(300, 100'000));
  StateOf(*engine)->conductor().Tell([] { throw std::runtime_error("out of luck"); });
}

// Four ranks, two gangs: the links of one of them lose what is sent.
TEST(EngineFailureTest, AGangThatFailsEndsItsOwnRequestAlone) {
  EngineOptions options;
  options.devices = "cpu:4";
  options.threads_per_rank = 1;
  options.timeout_s = 2;
  const Engine engine = Engine::Load(TinyModelFolder(), options);
  Conductor& conductor = StateOf(engine)->conductor();
  int made = 0;
  conductor.Tell([&] {
    conductor.MakeFabricsBy([&made] {
      std::unique_ptr<Fabric> fabric = MakeLocalFabric(4);
      if (++made > 1) return fabric;
      for (int rank = 0; rank < 4; ++rank) {
        Faults faults;
        faults.lose_from = rank;
        fabric = MakeFaultFabric(std::move(fabric), faults);
      }
      return fabric;
    });
  });
  const auto together = [&](int tokens) {
    Request request = Prompt(tokens, 3);
    request.prefill.ranks = 2;
    request.reuse_prefix = false;
    return engine.Submit(std::move(request));
  };
  std::vector<RequestHandle> handles;
  for (int i = 0; i < 6; ++i) handles.push_back(together(400));
  int failed = 0;
  for (RequestHandle& handle : handles) {
    const RequestEvent end = EndOf(handle);
    if (end.finish != FinishReason::kError) continue;
    ++failed;
    EXPECT_NE(end.error.find("link "), std::string::npos) << end.error;
  }
  EXPECT_EQ(failed, 1);
  RequestHandle after = together(500);
  EXPECT_EQ(EndOf(after).finish, FinishReason::kLength);
  EXPECT_FALSE(engine.Status().failed);
}

// The rounds of a prompt have lengths that nobody searched.
TEST(EngineFailureTest, SearchedCutsInRoundsOfOtherLengths) {
  const Engine engine = LoadTiny(/*max_pause_ms=*/0.5);
  constexpr int kTokens = 1500;
  {
    HeldEngine held = StateOf(engine)->Hold();
    PartitionTable table{held.planner().table_key(), {}};
    table.Put({Scheme::kRunaheadChain, Partition({0, 1000, kTokens}), 1e-3});
    Tuned tuned;
    tuned.table = table;
    held.planner().Use(std::move(tuned));
  }
  std::vector<int32_t> ids;
  for (const PartitionKind kind : {PartitionKind::kEven, PartitionKind::kSearched}) {
    RequestHandle beside = engine.Submit(Prompt(20, 200));  // whose answer makes rounds short
    (void)beside.Next(std::chrono::minutes(1));
    Request request = Prompt(kTokens, 1);
    request.prefill.partition.kind = kind;
    request.reuse_prefix = false;
    RequestHandle handle = engine.Submit(std::move(request));
    RequestEvent end = EndOf(handle);
    EXPECT_EQ(end.finish, FinishReason::kLength) << end.error;
    EXPECT_LT(end.stats.cuts.back(), kTokens) << "there was one round alone";
    EXPECT_EQ(end.stats.members.size(), 2U);
    beside.Cancel();
  }
}

TEST(GivenWork, TheWaitForAnAnswerEnds) {
  std::promise<RankWorkDone> never;
  GivenWork work{"rank 1 on b", {1, never.get_future()}, Clock::now(), std::chrono::milliseconds(20)};
  try {
    (void)work.Await();
    FAIL();
  } catch (const LinkError& error) {
    EXPECT_EQ(std::string(error.what()), "rank 1 on b: no answer within 0.02 s");
  }
}

}  // namespace
}  // namespace runahead
