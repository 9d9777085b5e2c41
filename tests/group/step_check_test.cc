// What another process says is refused where it does not fit this one.
#include "group/step_check.h"

#include <gtest/gtest.h>

#include "group/group_messages.h"

namespace runahead {
namespace {

constexpr StepBounds kBounds{
    .rank = 1, .ranks = 3, .vocab = 100, .pages = 4, .short_positions = 512, .long_positions = 0};

/// The second of two members of a gang: rows [128, 200) of a prompt whose first rows rank 2 reads.
StepPlan Good() {
  StepPlan plan;
  plan.step = 7;
  plan.samplers = {
      {.sequence = 5, .options = {}, .logit_bias = {{99, 1.F}}, .logprobs = 0, .prompt = {1}, .drawn = {2}}};
  plan.copies = {{.from = 0, .to = 3, .rows = 128}};
  plan.chunks = {{.sequence = 5, .begin = 128, .tokens = std::vector<int32_t>(72, 1), .pages = {2, 3}, .draw = true}};
  auto gang = std::make_shared<GangPlan>();
  gang->members = {2, 1};
  gang->cuts = {0, 128, 200};
  gang->held = {0, 0};
  gang->pages = {{7}, {2, 3}};
  plan.gang = gang;
  plan.member = 1;
  return plan;
}

using Change = void (*)(StepPlan& plan, GangPlan& gang);

std::string Why(Change change) {
  StepPlan plan = Good();
  auto gang = std::make_shared<GangPlan>(*plan.gang);
  change(plan, *gang);
  if (plan.gang != nullptr) plan.gang = gang;
  return CheckStepPlan(plan, kBounds).message();
}

TEST(StepCheck, TakesWhatFits) { EXPECT_EQ(CheckStepPlan(Good(), kBounds).message(), ""); }

TEST(StepCheck, RowsOfGpusTravelExact) {
  StepPlan plan = Good();
  auto gang = std::make_shared<GangPlan>(*plan.gang);
  gang->wire = {WireFormat::kExact, WireFormat::kInt8, WireFormat::kExact, WireFormat::kExact};
  plan.gang = gang;
  EXPECT_EQ(CheckStepPlan(plan, kBounds).message(), "");
  StepBounds gpu = kBounds;
  gpu.host_memory = false;
  EXPECT_EQ(CheckStepPlan(plan, gpu).message(), "gang.wire: rows of GPUs travel exact");
}

TEST(StepCheck, RefusesIdsPagesAndPositions) {
  EXPECT_EQ(Why([](StepPlan& plan, GangPlan&) { plan.chunks[0].tokens[9] = 100; }),
            "chunk.tokens: 100 is outside [0, 100)");
  EXPECT_EQ(Why([](StepPlan& plan, GangPlan&) { plan.chunks[0].tokens[9] = -1; }),
            "chunk.tokens: -1 is outside [0, 100)");
  EXPECT_EQ(Why([](StepPlan& plan, GangPlan&) { plan.chunks[0].pages[0] = 4; }), "chunk.pages: 4 is outside [0, 4)");
  EXPECT_EQ(Why([](StepPlan& plan, GangPlan&) { plan.chunks[0].pages.pop_back(); }), "chunk.pages: 1 for 200 rows");
  EXPECT_EQ(Why([](StepPlan& plan, GangPlan&) { plan.chunks[0].begin = 1000; }),
            "chunk.end: 1072 is outside [1, 513)");
  EXPECT_EQ(Why([](StepPlan& plan, GangPlan&) { plan.chunks[0].long_angles = true; }),
            "chunk.end: 200 is outside [1, 1)");
  EXPECT_EQ(Why([](StepPlan& plan, GangPlan&) { plan.copies[0].to = -1; }), "copy.to: -1 is outside [0, 4)");
  EXPECT_EQ(Why([](StepPlan& plan, GangPlan&) { plan.copies[0].rows = 129; }), "copy.rows: 129 is outside [0, 129)");
  EXPECT_EQ(Why([](StepPlan& plan, GangPlan&) { plan.samplers[0].drawn[0] = 100; }),
            "sampler.drawn: 100 is outside [0, 100)");
  EXPECT_EQ(Why([](StepPlan& plan, GangPlan&) { plan.samplers[0].logit_bias[0].first = 1 << 30; }),
            "sampler.logit_bias: 1073741824 is outside [0, 100)");
}

TEST(StepCheck, RefusesGangsThatDoNotFit) {
  EXPECT_EQ(Why([](StepPlan& plan, GangPlan&) { plan.member = 2; }), "member: 2 is outside [0, 2)");
  EXPECT_EQ(Why([](StepPlan& plan, GangPlan&) { plan.member = 0; }), "gang: member 0 is rank 2");
  EXPECT_EQ(Why([](StepPlan&, GangPlan& gang) { gang.members[0] = 3; }), "gang.members: 3 is outside [0, 3)");
  EXPECT_EQ(Why([](StepPlan&, GangPlan& gang) { gang.members[0] = 1; }), "gang.members: a rank comes twice");
  EXPECT_EQ(Why([](StepPlan&, GangPlan& gang) { gang.cuts[2] = 201; }),
            "gang.cuts: [128, 201) for a chunk [128, 200)");
  EXPECT_EQ(Why([](StepPlan&, GangPlan& gang) { gang.held[0] = 1; }), "gang.held: 1 is outside [0, 1)");
  EXPECT_EQ(Why([](StepPlan&, GangPlan& gang) { gang.pages[1] = {2}; }), "gang.pages: 1 of member 1 for 200 rows");
  EXPECT_EQ(Why([](StepPlan&, GangPlan& gang) { gang.pages[0] = {}; }), "gang.pages: 0 of member 0 for 128 rows");
  EXPECT_EQ(Why([](StepPlan&, GangPlan& gang) { gang.strategy = Strategy::kTspCausal; }),
            "gang.pages: 1 of member 0 for 200 rows");
  EXPECT_EQ(Why([](StepPlan& plan, GangPlan&) { plan.chunks.push_back(plan.chunks[0]); }), "gang: 2 chunks");
}

TEST(StepCheck, RefusesAnswersToWhatNobodyAsked) {
  const std::vector<SequenceId> draws = {5};
  StepResult good;
  good.rank = 1;
  good.drawn.resize(1);
  good.drawn[0].sequence = 5;
  good.drawn[0].token.id = 99;
  const auto why = [&](auto&& change) {
    StepResult result = good;
    change(result);
    return CheckStepResult(result, 1, draws, 100).message();
  };
  EXPECT_EQ(why([](StepResult&) {}), "");
  EXPECT_EQ(why([](StepResult& result) { result.rank = 2; }), "rank: 2 for 1");
  EXPECT_EQ(why([](StepResult& result) { result.drawn[0].token.id = 100; }), "token.id: 100 is outside [0, 100)");
  EXPECT_EQ(why([](StepResult& result) { result.drawn[0].sequence = 6; }), "drawn.sequence: 6 for 5");
  EXPECT_EQ(why([](StepResult& result) { result.drawn.clear(); }), "drawn: 0 tokens for 1");
  EXPECT_EQ(why([](StepResult& result) { result.error = "it failed"; }), "drawn: 1 tokens for 0");
  EXPECT_NE(why([](StepResult& result) { result.seconds = -1; }), "");
}

TEST(GroupMessages, FactsOfRanksComeBack) {
  const std::vector<RankFacts> facts = {{"cpu", "2 x Some CPU", 3, 1.5, 12}, {"cuda:0 (H)", "H", 1, 1, 1 << 24}};
  std::vector<RankFacts> read;
  ASSERT_EQ(Decode(Encode(facts), read).message(), "");
  ASSERT_EQ(read.size(), 2U);
  EXPECT_EQ(read[0].kind, facts[0].kind);
  EXPECT_EQ(read[0].slowdown, 1.5);
  EXPECT_EQ(read[1].device, facts[1].device);
  EXPECT_EQ(read[1].pages, 1 << 24);
  EXPECT_EQ(Decode(Encode(std::vector<RankFacts>{{"cpu", "", 0, 1, 1}}), read).message(), "rank.threads: 0");
  EXPECT_EQ(Decode(Encode(std::vector<RankFacts>{{"cpu", "", 1, 1, 0}}), read).message(), "rank.pages: 0");
}

TEST(GroupMessages, StepsComeBackForTheirRank) {
  RankStep step;
  ASSERT_EQ(Decode(EncodeStep(1, 77, Good()), step).message(), "");
  EXPECT_EQ(step.rank, 1);
  EXPECT_EQ(step.links, 77U);
  EXPECT_EQ(step.plan.step, 7U);
  EXPECT_EQ(CheckStepPlan(step.plan, kBounds).message(), "");
  const std::string whole = EncodeStep(1, 77, Good());
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    EXPECT_FALSE(Decode(std::string_view(whole).substr(0, bytes), step).ok()) << bytes;
  }
}

}  // namespace
}  // namespace runahead
