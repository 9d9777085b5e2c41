// Plans and results survive the way over a wire; what is cut, longer or changed is refused or is another valid one.
#include "wire/step_messages.h"

#include <gtest/gtest.h>

#include <random>

namespace runahead {
namespace {

StepPlan FullPlan() {
  GangPlan gang;
  gang.members = {3, 1};
  gang.strategy = Strategy::kTspCausal;
  gang.topology = Topology::kDirect;
  gang.cuts = {128, 256, 300};
  gang.held = {128, 0};
  gang.pages = {{1, 2, 3}, {9, 8, 7}};
  gang.wire = {WireFormat::kExact, WireFormat::kInt4, WireFormat::kInt8, WireFormat::kFp8};
  StepPlan plan;
  plan.step = 77;
  plan.ended = {5, 6};
  SamplerPlan sampler;
  sampler.sequence = 9;
  sampler.options.temperature = 0.7;
  sampler.options.seed = 1ULL << 60;
  sampler.options.frequency_penalty = -1.5;
  sampler.logit_bias = {{3, 1.5F}, {4, -100}};
  sampler.logprobs = 4;
  sampler.prompt = {1, 2, 3};
  sampler.drawn = {4};
  plan.samplers = {sampler};
  plan.copies = {{1, 2, 100}};
  plan.chunks = {
      {.sequence = 9, .begin = 128, .tokens = {1, -2, 3}, .pages = {4, 5}, .long_angles = true, .draw = true}};
  plan.gang = std::make_shared<const GangPlan>(gang);
  plan.member = 1;
  plan.record_timeline = true;
  return plan;
}

StepResult FullResult() {
  StepResult result;
  result.step = 77;
  result.rank = 1;
  result.stopped = true;
  result.error = "rank 1: out of luck";
  result.device_failed = true;
  result.drawn = {{.sequence = 9, .token = {5, -0.5F}, .likely = {{5, -0.5F}, {6, -1}}, .error = "no"}};
  result.begin_s = 1.5;
  result.seconds = 0.25;
  result.wait_s = 0.125;
  result.bytes_sent = 1 << 30;
  result.timeline = {
      {.rank = 1, .layer = 2, .activity = Activity::kReceive, .begin_ms = 1, .end_ms = 2, .bytes = 3, .peer = 0}};
  return result;
}

// Decoding and encoding again gives the same bytes only when every field travelled, and came where it belongs.
TEST(StepMessages, EveryFieldTravels) {
  const std::string bytes = EncodeStepPlan(FullPlan());
  StepPlan plan;
  ASSERT_TRUE(DecodeStepPlan(bytes, plan).ok());
  EXPECT_EQ(EncodeStepPlan(plan), bytes);
  EXPECT_EQ(plan.samplers.at(0).options.seed, 1ULL << 60);
  EXPECT_EQ(plan.gang->pages, (std::vector<PageList>{{1, 2, 3}, {9, 8, 7}}));
  EXPECT_EQ(plan.gang->wire,
            (std::vector<WireFormat>{WireFormat::kExact, WireFormat::kInt4, WireFormat::kInt8, WireFormat::kFp8}));
  EXPECT_EQ(plan.chunks.at(0).tokens, (std::vector<int32_t>{1, -2, 3}));
  ASSERT_NE(plan.stop, nullptr);
  EXPECT_FALSE(*plan.stop);

  const std::string answer = EncodeStepResult(FullResult());
  StepResult result;
  ASSERT_TRUE(DecodeStepResult(answer, result).ok());
  EXPECT_EQ(EncodeStepResult(result), answer);
  EXPECT_EQ(result.error, "rank 1: out of luck");
  EXPECT_EQ(result.timeline.at(0).activity, Activity::kReceive);
}

TEST(StepMessages, APlanWithoutAGangTravels) {
  StepPlan plan = FullPlan();
  plan.gang = nullptr;
  plan.member = 0;
  StepPlan read = FullPlan();
  ASSERT_TRUE(DecodeStepPlan(EncodeStepPlan(plan), read).ok());
  EXPECT_EQ(read.gang, nullptr);
}

TEST(StepMessages, CutAndLongerBytesAreRefusedAndNamed) {
  const std::string bytes = EncodeStepPlan(FullPlan());
  StepPlan plan;
  for (size_t size = 0; size < bytes.size(); ++size) {
    const Status status = DecodeStepPlan(std::string_view(bytes).substr(0, size), plan);
    EXPECT_FALSE(status.ok()) << size;
  }
  EXPECT_EQ(plan.step, 0U);  // nothing of a refused message is taken
  EXPECT_EQ(DecodeStepPlan(bytes.substr(0, 4), plan).message(), "step: the message ends in it");
  EXPECT_EQ(DecodeStepPlan(bytes + "x", plan).message(), "1 bytes too many");
  const std::string answer = EncodeStepResult(FullResult());
  StepResult result;
  for (size_t size = 0; size < answer.size(); ++size) {
    EXPECT_FALSE(DecodeStepResult(std::string_view(answer).substr(0, size), result).ok()) << size;
  }
}

TEST(StepMessages, CountsBeyondTheMessageAreRefused) {
  std::string bytes = EncodeStepPlan(FullPlan());
  bytes.at(14) = 0x7F;  // in the count of `ended`
  StepPlan plan;
  EXPECT_NE(DecodeStepPlan(bytes, plan).message().find("ended: "), std::string::npos);
}

TEST(StepMessages, AGangThatDoesNotFitItselfIsRefused) {
  const auto refused = [](auto&& change) {
    StepPlan plan = FullPlan();
    GangPlan gang = *plan.gang;
    change(plan, gang);
    plan.gang = std::make_shared<const GangPlan>(gang);
    StepPlan read;
    return DecodeStepPlan(EncodeStepPlan(plan), read).message();
  };
  EXPECT_EQ(refused([](StepPlan&, GangPlan& gang) { gang.held = {1}; }),
            "gang: 2 members, 3 cuts, 1 rows held, 2 lists of pages");
  EXPECT_EQ(refused([](StepPlan&, GangPlan& gang) { gang.cuts = {1, 5, 5}; }), "gang.cuts: they do not rise");
  EXPECT_EQ(refused([](StepPlan&, GangPlan& gang) { gang.wire.pop_back(); }), "gang.wire: 3 formats for 2 members");
  EXPECT_EQ(refused([](StepPlan&, GangPlan& gang) { gang.wire[1] = static_cast<WireFormat>(4); }),
            "gang.wire: no value 4");
  EXPECT_EQ(refused([](StepPlan& plan, GangPlan&) { plan.member = 2; }), "member: 2 of 2");
  EXPECT_EQ(refused([](StepPlan& plan, GangPlan&) { plan.chunks.clear(); }), "gang: 0 chunks");
  EXPECT_EQ(refused([](StepPlan&, GangPlan& gang) { gang.strategy = static_cast<Strategy>(9); }),
            "gang.strategy: no value 9");
  EXPECT_EQ(refused([](StepPlan& plan, GangPlan&) { plan.chunks[0].begin = -1; }), "chunk.begin: no value -1");
}

TEST(StepMessages, AnyBytesAreRefusedOrValid) {
  std::mt19937 random(11);
  const std::string good = EncodeStepPlan(FullPlan());
  for (int run = 0; run < 3'000; ++run) {
    std::string bytes = good;
    for (int change = 0; change < 3; ++change) bytes.at(random() % bytes.size()) = static_cast<char>(random());
    StepPlan plan;
    if (DecodeStepPlan(bytes, plan).ok()) {
      EXPECT_EQ(EncodeStepPlan(plan), bytes);
    }
  }
}

}  // namespace
}  // namespace runahead
