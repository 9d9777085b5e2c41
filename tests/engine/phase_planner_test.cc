// What the engine plans with and without measurements, and that the planner counts what the engine does.
#include "engine/phase_planner.h"

#include <gtest/gtest.h>

#include <random>

#include "engine/engine_state.h"
#include "engine/session_state.h"
#include "model/flops.h"
#include "plan/counters.h"
#include "prefill/work_shape_of.h"
#include "runahead/error.h"
#include "tests/engine/tiny_model.h"

namespace runahead {
namespace {

constexpr const char* kNowhere = "/nonexistent/tuned";

std::shared_ptr<EngineState> LoadTiny(const std::string& devices, const std::vector<double>& slowdowns = {},
                                      const char* preset = "tiny-llama") {
  EngineOptions options;
  options.devices = devices;
  options.threads_per_rank = 1;
  options.dtype = "f32";
  options.slowdown_of_rank = slowdowns;
  options.tuned_folder = kNowhere;
  return LoadEngineState(TinyModelFolder(preset), options);
}

std::vector<int32_t> Prompt(int64_t tokens) {
  std::vector<int32_t> prompt(static_cast<size_t>(tokens));
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>(i * 37 % 300);
  return prompt;
}

DecoderSpec RandomSpec(std::mt19937& random) {
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  DecoderSpec spec;
  spec.layers = static_cast<int>(draw(1, 6));
  spec.vocab = draw(1, 1000);
  spec.hidden = draw(1, 100);
  spec.kv_heads = draw(1, 4);
  spec.q_heads = spec.kv_heads * draw(1, 4);
  spec.head_dim = draw(1, 64);
  spec.ffn = draw(1, 300);
  if (draw(0, 2) == 0) {
    spec.kv_heads = 1;
    spec.latent = {draw(1, 60), draw(0, 1) * draw(1, 40), draw(1, 40), draw(1, 40)};
  }
  if (draw(0, 1) == 1) {
    spec.mixture.experts = draw(1, 9);
    spec.mixture.chosen = draw(1, spec.mixture.experts);
    spec.mixture.ffn = draw(1, 50);
    spec.mixture.shared_ffn = draw(0, 20);
    spec.mixture.gated_shared = spec.mixture.shared_ffn > 0 && draw(0, 1) == 1;
    for (int layer = 0; layer < spec.layers; ++layer) spec.mixture.layers.push_back(draw(0, 3) > 0);
  }
  if (draw(0, 1) == 1) {
    for (int layer = 0; layer < spec.layers; ++layer) spec.windows.push_back(draw(0, 1) * draw(1, 100));
  }
  return spec;
}

TEST(PlannerCounters, FlopsAreTheEngines) {
  std::mt19937 random(1);
  for (int round = 0; round < 100; ++round) {
    const DecoderSpec spec = RandomSpec(random);
    const WorkShape shape = WorkShapeOf(spec, DType::kF32);
    const auto tokens = static_cast<int64_t>(5 + random() % 300);
    const Partition partition = FractionPartition(tokens, std::vector{1.0, 2.0, 0.5, 1.5});
    const std::vector<RankCounters> counters = CountWork(shape, Scheme::kRunaheadChain, partition);
    for (int rank = 0; rank < partition.ranks(); ++rank) {
      const bool last = rank + 1 == partition.ranks();
      const ModelFlops flops = ChunkFlops(spec, partition.begin(rank), partition.end(rank),
                                          last ? LastLayer::kLastRow : LastLayer::kKeysAndValues);
      EXPECT_EQ(counters[static_cast<size_t>(rank)].linear_flops, flops.linear);
      EXPECT_EQ(counters[static_cast<size_t>(rank)].attention_flops, flops.attention);
    }
  }
}

// What the ranks send and receive in a prompt phase, to the byte.
void ExpectBytesOfTheEngine(const char* preset) {
  const auto engine = LoadTiny("cpu:4", {}, preset);
  const WorkShape shape = WorkShapeOf(engine->decoder().spec(), engine->decoder().compute_dtype());
  SessionState session(engine, 128);
  for (const int64_t tokens : {4, 9, 101}) {
    for (const auto& [strategy, topology] :
         {std::pair{Strategy::kRunahead, Topology::kChain}, std::pair{Strategy::kRunahead, Topology::kDirect},
          std::pair{Strategy::kTspDense, Topology::kDirect}, std::pair{Strategy::kTspCausal, Topology::kDirect}}) {
      PrefillOptions options{strategy, topology, PartitionRequest::Parse("even"), 0, true};
      const PrefillReport report = session.Prefill(Prompt(tokens), options);
      const Partition partition(report.cuts);
      std::vector<size_t> sent(4);
      std::vector<size_t> received(4);
      for (const TimelineEvent& event : report.timeline) {
        if (event.activity == Activity::kSend) sent[static_cast<size_t>(event.rank)] += event.bytes;
        if (event.activity == Activity::kReceive) received[static_cast<size_t>(event.rank)] += event.bytes;
      }
      const std::vector<RankCounters> counters = CountWork(shape, SchemeOf(strategy, topology), partition);
      for (size_t rank = 0; rank < counters.size(); ++rank) {
        EXPECT_EQ(sent[rank], counters[rank].sent_bytes) << Name(strategy) << " " << Name(topology) << " " << rank;
        EXPECT_EQ(received[rank], counters[rank].received_bytes);
      }
    }
  }
}

TEST(PlannerCounters, BytesAreTheEngines) {
  ExpectBytesOfTheEngine("tiny-llama");
  ExpectBytesOfTheEngine("tiny-deepseek-v3");
}

TEST(PhasePlanner, WithoutMeasurementsUsesAllRanksAndSaysSo) {
  SessionState session(LoadTiny("cpu:3"), 64);
  const PrefillReport report = session.Prefill(Prompt(60), {});
  EXPECT_EQ(report.ranks(), 3);
  EXPECT_EQ(report.members, (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(report.plan.find("analytic model: ranks used 3 of 3"), 0U) << report.plan;
  EXPECT_EQ(report.predicted_ms, 0);
}

TEST(PhasePlanner, RefusesWhatTheTableDoesNotHave) {
  SessionState session(LoadTiny("cpu:2"), 64);
  for (const char* kind : {"searched", "predicted"}) {
    PrefillOptions options;
    options.partition = PartitionRequest::Parse(kind);
    try {
      session.Prefill(Prompt(60), options);
      FAIL() << kind;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find("60 tokens on 2 ranks"), std::string::npos) << error.what();
    }
  }
}

TEST(PhasePlanner, TakesTheTableBeforeTheProfile) {
  const auto engine = LoadTiny("cpu:2");
  HeldEngine held = engine->Hold();
  PhasePlanner& planner = held.planner();
  Tuned tuned;
  tuned.table = PartitionTable{planner.key(), {}};
  tuned.table->Put({Scheme::kSingle, Partition({0, 60}), 3e-3});
  tuned.table->Put({Scheme::kRunaheadDirect, Partition({0, 45, 60}), 1e-3});
  planner.Use(tuned);
  const PhasePlan& plan = planner.PlanFor(60, {});
  EXPECT_EQ(plan.partition.ToString(), "45/15");
  EXPECT_EQ(plan.scheme, Scheme::kRunaheadDirect);
  EXPECT_EQ(plan.reason.find("partition table: ranks used 2 of 2"), 0U) << plan.reason;
  PrefillOptions predicted;
  predicted.partition = PartitionRequest::Parse("predicted");
  EXPECT_EQ(planner.PlanFor(80, predicted).partition.ToString(), "60/20");
  // Where several ranks were slower, one is used.
  tuned.table->Put({Scheme::kRunaheadDirect, Partition({0, 45, 60}), 3e-3});
  planner.Use(tuned);
  EXPECT_EQ(planner.PlanFor(60, {}).members.size(), 1U);
}

// On slow links the first rank, whose rows travel, takes less.
TEST(PhasePlanner, CountsWhatLimitedLinksTake) {
  const auto engine = LoadTiny("cpu:2");
  HeldEngine held = engine->Hold();
  PhasePlanner& planner = held.planner();
  const ProfileKey key = planner.key();
  EXPECT_EQ(planner.table_key(), key);
  const int64_t fast = planner.PlanFor(400, {}).partition.rows(0);
  Tuned tuned;
  tuned.profile = CostProfile{key, {{2, planner.CostsWhile(2)}}};
  tuned.table = PartitionTable{key, {}};
  planner.Use(tuned);
  EngineOptions options;
  options.link_bandwidth = "1MB/s";
  held.SetLinks(ParseLinkOptions(options, 2));
  EXPECT_EQ(planner.key(), key);
  EXPECT_FALSE(planner.table_key() == key);
  EXPECT_TRUE(planner.tuned().profile.has_value());  // costs of compute are what they were
  EXPECT_FALSE(planner.tuned().table.has_value());
  EXPECT_EQ(planner.CostsWhile(2).links.Between(0, 1).bytes_per_s, 1e6);
  PrefillOptions both;
  both.ranks = 2;
  EXPECT_LT(planner.PlanFor(400, both).partition.rows(0), fast);
  held.SetLinks({});
  EXPECT_EQ(planner.PlanFor(400, both).partition.rows(0), fast);
}

// A rank far slower than the others is left out, on the run too.
TEST(PhasePlanner, LeavesOutASlowRankByTheProfile) {
  const auto engine = LoadTiny("cpu:3", {1, 2, 1});
  const std::vector<CpuRankShare> shares{{1, 1}, {1, 1000}, {1, 1}};
  Tuned tuned;
  const PhasePlanner planner = engine->Hold().planner();
  tuned.profile = CostProfile{planner.key(), {{1, AssumedCpuCosts(planner.shape(), shares)}}};
  engine->Hold().planner().Use(tuned);
  const PhasePlan plan = engine->Hold().planner().PlanFor(512, {});
  EXPECT_EQ(plan.members, (std::vector<int>{0, 2}));
  EXPECT_EQ(plan.reason.find("cost profile: ranks used 2 of 3 (ranks 0,2)"), 0U) << plan.reason;
  SessionState session(engine, 520);
  const std::vector<int32_t> prompt = Prompt(512);
  const PrefillReport report = session.Prefill(prompt, {});
  EXPECT_EQ(report.members, plan.members);
  EXPECT_GT(report.predicted_ms, 0);
  const std::vector<float> logits(session.logits().begin(), session.logits().end());
  session.Append(7);
  session.Prefill(prompt, {Strategy::kSingle, {}, {}, 0, false});
  for (size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(logits[i], session.logits()[i], 1e-4);
}

// Once ranks are lost, a prompt is planned as for a group of those that are left.
TEST(PhasePlanner, PlansForTheRanksThatAreLeft) {
  const auto engine = LoadTiny("cpu:3", {1, 2, 1});
  const std::vector<CpuRankShare> shares{{1, 1}, {1, 2}, {1, 1}};
  PhasePlanner planner = engine->Hold().planner();
  const ClusterCosts costs = AssumedCpuCosts(planner.shape(), shares);
  planner.Use({CostProfile{planner.key(), {{3, costs}}}, {}, ""});
  const std::vector<int> left{1, 2};
  planner.PlanOver(left);
  const PhasePlan plan = planner.PlanFor(4000, {});
  EXPECT_EQ(plan.members, left);
  PlanRequest request;
  request.tokens = 4000;
  request.ranks = 2;
  const ClusterCosts of_two = costs.Select(left);
  const auto of_all = [&](int) -> const ClusterCosts& { return of_two; };
  const Partition expected = ChoosePlan(planner.shape(), of_all, request).partition;
  EXPECT_EQ(plan.partition, RoundCuts(expected, planner.tile_rows()));
  EXPECT_EQ(planner.PlanFor(4000, {Strategy::kTspCausal, {}, {}, 3, false}).members, left);
  EXPECT_EQ(planner.PlanFor(4000, {Strategy::kSingle, {}, {}, 0, false}).members, std::vector<int>{1});
  planner.PlanOver({0, 1, 2});
  EXPECT_EQ(planner.PlanFor(4000, {Strategy::kTspCausal, {}, {}, 3, false}).members.size(), 3U);
}

}  // namespace
}  // namespace runahead
