// What the scheduler tells ranks that are played here: nothing is computed.
#include "schedule/scheduler.h"

#include <gtest/gtest.h>

#include <numeric>
#include <optional>
#include <utility>

namespace runahead {
namespace {

/// Ranks whose steps wait to be ended.
class PlayedCrew final : public Crew {
 public:
  explicit PlayedCrew(int ranks) : steps_(static_cast<size_t>(ranks)) {}

  [[nodiscard]] int ranks() const override { return static_cast<int>(steps_.size()); }
  void Start(int rank, StepPlan plan) override { steps_.at(static_cast<size_t>(rank)) = std::move(plan); }
  void StartTogether(std::vector<StepPlan> /*plans*/) override { FAIL() << "no prompt here is for several ranks"; }
  void Renew() override {}
  [[nodiscard]] double Now() const override { return now_s_; }

  [[nodiscard]] std::optional<StepPlan>& step(int rank) { return steps_.at(static_cast<size_t>(rank)); }

  /// Ends the step of `rank`: token 0 is drawn for each sequence that wants one.
  StepResult End(int rank) {
    StepPlan plan = *std::exchange(step(rank), std::nullopt);
    now_s_ += 0.01;
    StepResult result;
    result.step = plan.step;
    result.rank = rank;
    result.seconds = 0.01;
    for (const ChunkPlan& chunk : plan.chunks) {
      if (chunk.draw) result.drawn.push_back({chunk.sequence, {0, 0.0F}, {}});
    }
    return result;
  }

 private:
  std::vector<std::optional<StepPlan>> steps_;
  double now_s_ = 0;
};

/// Every rank by itself, and work by rows alone.
class PlainForecast final : public Forecast {
 public:
  [[nodiscard]] GangChoice Choose(int64_t /*tokens*/, const PrefillOptions& /*options*/) override { return {}; }
  [[nodiscard]] std::vector<int64_t> Cuts(const GangChoice& /*choice*/, const PrefillOptions& /*options*/,
                                          int64_t begin, int64_t end) override {
    return {begin, end};
  }
  [[nodiscard]] double Seconds(const GangChoice& /*choice*/, const PrefillOptions& /*options*/,
                               std::span<const int64_t> /*held*/, int64_t /*begin*/, int64_t /*end*/) override {
    return 0;
  }
  [[nodiscard]] bool alike() const override { return true; }
  [[nodiscard]] double Work(int64_t begin, int64_t end) const override { return static_cast<double>(end - begin); }
  [[nodiscard]] bool IsLong(int64_t /*tokens*/) const override { return false; }
  [[nodiscard]] bool windowed() const override { return windowed_; }

  bool windowed_ = false;
};

class Silent final : public Listener {
 public:
  void OnProgress(const PromptProgress& /*progress*/) override {}
  std::optional<FinishReason> OnToken(const Drawn& /*drawn*/) override { return std::nullopt; }
  void OnEnd(FinishReason /*finish*/, const std::string& /*error*/, const RequestStats& /*stats*/) override {}
};

class SchedulerTest : public testing::Test {
 protected:
  /// Queues a prompt of `shared` tokens that all such prompts begin with, and `own` that none other has.
  SequenceId Add(Scheduler& scheduler, int shared, int own) {
    Request request;
    request.prompt.resize(static_cast<size_t>(shared));
    std::iota(request.prompt.begin(), request.prompt.end(), 0);
    for (int i = 0; i < own; ++i) request.prompt.push_back(++last_own_);
    return scheduler.Add(std::move(request), std::make_unique<Silent>()).id;
  }

  static std::vector<std::pair<SequenceId, int64_t>> SequencesAndBegins(const std::optional<StepPlan>& step) {
    std::vector<std::pair<SequenceId, int64_t>> chunks;
    if (!step) return chunks;
    for (const ChunkPlan& chunk : step->chunks) chunks.emplace_back(chunk.sequence, chunk.begin);
    return chunks;
  }

  static Scheduler::Limits LimitsOf(int ranks) {
    Scheduler::Limits limits;
    limits.pages.assign(static_cast<size_t>(ranks), 1000);
    limits.context = 100'000;
    return limits;
  }

  PlainForecast forecast_;
  int32_t last_own_ = 10'000;
};

using Chunks = std::vector<std::pair<SequenceId, int64_t>>;

TEST_F(SchedulerTest, APromptWaitsForTheRowsOfOneThatIsBeingRead) {
  PlayedCrew crew(1);
  Scheduler scheduler(crew, forecast_, LimitsOf(1));
  const SequenceId first = Add(scheduler, 300, 20);
  const SequenceId second = Add(scheduler, 300, 30);
  const SequenceId other = Add(scheduler, 0, 40);
  scheduler.Work();
  EXPECT_EQ(SequencesAndBegins(crew.step(0)), (Chunks{{first, 0}, {other, 0}})) << "others pass the one that waits";
  scheduler.Finish(crew.End(0));
  scheduler.Work();
  EXPECT_EQ(SequencesAndBegins(crew.step(0)), (Chunks{{first, 320}, {other, 40}, {second, 300}}));
}

TEST_F(SchedulerTest, AFewRowsAreNotWorthAWait) {
  PlayedCrew crew(1);
  Scheduler scheduler(crew, forecast_, LimitsOf(1));
  const SequenceId first = Add(scheduler, 100, 100);
  const SequenceId second = Add(scheduler, 100, 100);
  scheduler.Work();
  EXPECT_EQ(SequencesAndBegins(crew.step(0)), (Chunks{{first, 0}, {second, 0}}));
}

TEST_F(SchedulerTest, AnIdleRankIsSoonerThanAWait) {
  PlayedCrew crew(2);
  Scheduler scheduler(crew, forecast_, LimitsOf(2));
  const SequenceId first = Add(scheduler, 300, 20);
  const SequenceId second = Add(scheduler, 300, 20);
  const SequenceId third = Add(scheduler, 300, 20);
  scheduler.Work();
  EXPECT_EQ(SequencesAndBegins(crew.step(0)), (Chunks{{first, 0}}));
  EXPECT_EQ(SequencesAndBegins(crew.step(1)), (Chunks{{second, 0}}));
  scheduler.Finish(crew.End(1));
  scheduler.Work();
  EXPECT_EQ(SequencesAndBegins(crew.step(1)), (Chunks{{second, 320}, {third, 300}}));
}

TEST_F(SchedulerTest, ARequestThatTakesNoPrefixWaitsForNone) {
  PlayedCrew crew(1);
  Scheduler scheduler(crew, forecast_, LimitsOf(1));
  const SequenceId first = Add(scheduler, 300, 20);
  Request request;
  request.prompt.resize(300);
  std::iota(request.prompt.begin(), request.prompt.end(), 0);
  request.reuse_prefix = false;
  const SequenceId second = scheduler.Add(std::move(request), std::make_unique<Silent>()).id;
  scheduler.Work();
  EXPECT_EQ(SequencesAndBegins(crew.step(0)), (Chunks{{first, 0}, {second, 0}}));
}

TEST_F(SchedulerTest, ACancelledPromptLetsOthersGo) {
  PlayedCrew crew(1);
  Scheduler scheduler(crew, forecast_, LimitsOf(1));
  const SequenceId first = Add(scheduler, 300, 20);
  const SequenceId second = Add(scheduler, 300, 30);
  scheduler.Work();
  scheduler.Cancel(first);
  StepResult result = crew.End(0);
  result.stopped = true;
  result.drawn.clear();
  scheduler.Finish(std::move(result));
  scheduler.Work();
  EXPECT_EQ(SequencesAndBegins(crew.step(0)), (Chunks{{second, 0}}));
}

}  // namespace
}  // namespace runahead
