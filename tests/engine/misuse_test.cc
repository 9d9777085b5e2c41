// What callers of the public API may do wrong becomes an error that says so.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <utility>

#include "runahead/engine.h"
#include "runahead/generate.h"
#include "runahead/tokenizer.h"
#include "tests/engine/tiny_model.h"

namespace runahead {
namespace {

std::string Refusal(const std::function<void()>& use) {
  try {
    use();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no refusal";
}

Engine LoadTiny() {
  EngineOptions options;
  options.devices = "cpu:2";
  options.threads_per_rank = 1;
  return Engine::Load(TinyModelFolder(), options);
}

const std::vector<int32_t> kPrompt{5, 6, 7, 8};

// NOLINTBEGIN(bugprone-use-after-move): what such uses do is what is tested.
TEST(Misuse, WhatWasMovedFromSaysSo) {
  Engine engine = LoadTiny();
  Session session = engine.NewSession(16);
  const Session taken = std::move(session);
  const std::vector<std::function<void()>> uses = {
      [&] { session.Prefill(kPrompt); },
      [&] { session.Append(1); },
      [&] { session.AppendGreedy(1, true); },
      [&] { static_cast<void>(session.logits()); },
      [&] { static_cast<void>(session.size()); },
      [&] { static_cast<void>(session.capacity()); },
      [&] { static_cast<void>(session.CacheRows(0, false)); },
      [&] { Generate(session, nullptr, kPrompt, {}, {}); },
  };
  for (const auto& use : uses) EXPECT_EQ(Refusal(use), "session: it was moved from");
  EXPECT_EQ(taken.capacity(), 16);

  const Engine other = std::move(engine);
  for (const std::function<void()>& use : std::vector<std::function<void()>>{
           [&] { static_cast<void>(engine.ranks()); }, [&] { static_cast<void>(engine.threads_per_rank()); },
           [&] { static_cast<void>(engine.facts()); }, [&] { static_cast<void>(engine.NewSession(8)); }}) {
    EXPECT_EQ(Refusal(use), "engine: it was moved from");
  }
  EXPECT_EQ(other.ranks(), 2);

  Tokenizer tokenizer = Tokenizer::Load(TinyModelFolder());
  StreamDecoder stream(tokenizer);
  const Tokenizer kept = std::move(tokenizer);
  const StreamDecoder kept_stream = std::move(stream);
  for (const std::function<void()>& use : std::vector<std::function<void()>>{
           [&] { static_cast<void>(tokenizer.Encode("a")); }, [&] { static_cast<void>(tokenizer.Decode(kPrompt)); },
           [&] { static_cast<void>(tokenizer.TokenId("a")); }, [&] { static_cast<void>(tokenizer.SpecialToken(1)); },
           [&] { static_cast<void>(tokenizer.vocab_size()); }, [&] { static_cast<void>(tokenizer.bos_id()); },
           [&] { static_cast<void>(tokenizer.eos_id()); }, [&] { StreamDecoder of_nothing(tokenizer); }}) {
    EXPECT_EQ(Refusal(use), "tokenizer: it was moved from");
  }
  EXPECT_EQ(Refusal([&] { stream.Feed(1); }), "stream decoder: it was moved from");
  EXPECT_EQ(Refusal([&] { stream.Flush(); }), "stream decoder: it was moved from");
}
// NOLINTEND(bugprone-use-after-move)

TEST(Misuse, EnumsOutOfRangeAreNamed) {
  const Engine engine = LoadTiny();
  Session session = engine.NewSession(16);
  const auto refusal = [&](const std::function<void(PrefillOptions&)>& spoil) {
    PrefillOptions options;
    spoil(options);
    return Refusal([&] { session.Prefill(kPrompt, options); });
  };
  EXPECT_EQ(refusal([](auto& options) { options.strategy = static_cast<Strategy>(99); }),
            "strategy: no value has the number 99");
  EXPECT_EQ(refusal([](auto& options) { options.topology = static_cast<Topology>(7); }),
            "topology: no value has the number 7");
  EXPECT_EQ(refusal([](auto& options) { options.gather = static_cast<Gather>(7); }),
            "gather: no value has the number 7");
  EXPECT_EQ(refusal([](auto& options) { options.partition.kind = static_cast<PartitionKind>(9); }),
            "partition: no value has the number 9");
  EXPECT_NE(refusal([](auto& options) { options.partition.kind = PartitionKind::kManual; }), "no refusal");
  EXPECT_NE(refusal([](auto& options) {
              options.partition = {PartitionKind::kManual, {1, std::nan("")}};
            }),
            "no refusal");
  EXPECT_NE(refusal([](auto& options) { options.ranks = -1; }), "no refusal");
  EXPECT_EQ(Refusal([] { static_cast<void>(Name(static_cast<FinishReason>(9))); }),
            "finish reason: no value has the number 9");
  EXPECT_EQ(Refusal([] { static_cast<void>(Name(static_cast<Activity>(9))); }),
            "activity: no value has the number 9");
}

TEST(Misuse, CacheRowsNeedsALayerAndAPrompt) {
  const Engine engine = LoadTiny();
  Session session = engine.NewSession(16);
  EXPECT_EQ(Refusal([&] { static_cast<void>(session.CacheRows(0, false)); }),
            "session: CacheRows needs a prefilled prompt");
  session.Prefill(kPrompt);
  const int layers = engine.facts().layers;
  for (const int layer : {-1, layers, INT32_MAX, INT32_MIN}) {
    EXPECT_NE(Refusal([&] { static_cast<void>(session.CacheRows(layer, true)); }), "no refusal") << layer;
  }
  EXPECT_FALSE(session.CacheRows(layers - 1, true).empty());
}

TEST(Misuse, OptionsOutOfRangeAreRefused) {
  const auto load = [](const std::function<void(EngineOptions&)>& spoil) {
    EngineOptions options;
    options.devices = "cpu:2";
    spoil(options);
    return Refusal([&] { Engine::Load(TinyModelFolder(), options); });
  };
  for (const char* devices : {"", "cpu:", "cpu:0", "cpu:-1", "cpu:99999999999", "cuda:", "gpu", "cpu,cpu"}) {
    EXPECT_NE(load([&](auto& options) { options.devices = devices; }), "no refusal") << devices;
  }
  EXPECT_NE(load([](auto& options) { options.threads_per_rank = -1; }), "no refusal");
  EXPECT_NE(load([](auto& options) { options.threads_of_rank = {1, 0}; }), "no refusal");
  EXPECT_NE(load([](auto& options) { options.threads_of_rank = {1, 1, 1}; }), "no refusal");
  EXPECT_NE(load([](auto& options) { options.slowdown_of_rank = {1, std::nan("")}; }), "no refusal");
  EXPECT_NE(load([](auto& options) { options.slowdown_of_rank = {0.5, 1}; }), "no refusal");
  EXPECT_NE(load([](auto& options) { options.slowdown_of_rank = {1}; }), "no refusal");
  EXPECT_NE(load([](auto& options) { options.link = "fast"; }), "no refusal");
  EXPECT_NE(load([](auto& options) { options.link_bandwidth = "-1GB/s"; }), "no refusal");
  EXPECT_NE(load([](auto& options) { options.rank_bandwidth = "nan"; }), "no refusal");
  EXPECT_NE(load([](auto& options) { options.dtype = "f8"; }), "no refusal");
  for (const double timeout : {0.0, -1.0, std::nan(""), static_cast<double>(INFINITY)}) {
    EXPECT_NE(load([&](auto& options) { options.timeout_s = timeout; }), "no refusal") << timeout;
  }

  const Engine engine = LoadTiny();
  EXPECT_NE(Refusal([&] { static_cast<void>(engine.NewSession(INT64_MIN)); }), "no refusal");
  EXPECT_NE(Refusal([&] { static_cast<void>(engine.NewSession(INT64_MAX)); }), "no refusal");
  Session session = engine.NewSession(16);
  const auto generate = [&](const std::function<void(GenerationOptions&)>& spoil) {
    GenerationOptions options;
    options.max_new_tokens = 2;
    spoil(options);
    return Refusal([&] { Generate(session, nullptr, kPrompt, {}, options); });
  };
  EXPECT_EQ(generate([](auto&) {}), "no refusal");
  EXPECT_NE(generate([](auto& options) { options.max_new_tokens = -1; }), "no refusal");
  EXPECT_EQ(generate([](auto& options) { options.stop = {"."}; }), "stop strings need a tokenizer");
  EXPECT_EQ(generate([](auto& options) { options.stop_ids = {512}; }),
            "stop: token id 512 is outside the vocabulary of 512");
  EXPECT_EQ(generate([](auto& options) { options.stop_ids = {-1}; }),
            "stop: token id -1 is outside the vocabulary of 512");
  EXPECT_NE(generate([](auto& options) { options.sampling.min_p = 2; }), "no refusal");
  EXPECT_EQ(session.capacity(), 16);
}

}  // namespace
}  // namespace runahead
