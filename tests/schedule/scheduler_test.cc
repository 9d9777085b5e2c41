// What the scheduler tells ranks that are played here: nothing is computed.
#include "schedule/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kv/kv_pages.h"
#include "plan/partition.h"
#include "runahead/error.h"

namespace runahead {
namespace {

/// Ranks whose steps wait to be ended.
class PlayedCrew final : public Crew {
 public:
  explicit PlayedCrew(int ranks) : steps_(static_cast<size_t>(ranks)) {}

  [[nodiscard]] int ranks() const override { return static_cast<int>(steps_.size()); }
  void Start(int rank, StepPlan plan) override { steps_.at(static_cast<size_t>(rank)) = std::move(plan); }
  void StartTogether(std::vector<StepPlan> plans) override {
    const std::vector<int> members = plans.front().gang->members;
    for (size_t i = 0; i < members.size(); ++i) step(members[i]) = std::move(plans[i]);
  }
  void Renew(std::span<const int> /*members*/) override {}
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
      if (chunk.draw) result.drawn.push_back({chunk.sequence, {0, 0.0F}, {}, {}});
    }
    return result;
  }

 private:
  std::vector<std::optional<StepPlan>> steps_;
  double now_s_ = 0;
};

/// Every rank by itself unless several are asked for, even chunks, and work by rows alone.
class PlainForecast final : public Forecast {
 public:
  [[nodiscard]] GangChoice Choose(int64_t /*tokens*/, const PrefillOptions& options) override {
    GangChoice choice;
    choice.members.resize(static_cast<size_t>(options.ranks));
    std::iota(choice.members.begin(), choice.members.end(), 0);
    choice.asked_for = options.ranks > 1;
    choice.strategy = options.strategy;
    return choice;
  }
  [[nodiscard]] std::vector<int64_t> Cuts(const GangChoice& choice, const PrefillOptions& options, int64_t begin,
                                          int64_t end) override {
    if (options.partition.kind == PartitionKind::kSearched) throw ConfigError("partition: nothing was searched");
    return EvenPartition(end - begin, static_cast<int>(choice.members.size())).Behind(begin).cuts();
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

/// Whether a request failed, and why.
class Silent final : public Listener {
 public:
  explicit Silent(std::vector<std::string>* errors = nullptr) : errors_(errors) {}
  void OnProgress(const PromptProgress& /*progress*/) override {}
  std::optional<FinishReason> OnToken(const Drawn& /*drawn*/) override { return std::nullopt; }
  void OnEnd(FinishReason /*finish*/, const std::string& error, const RequestStats& /*stats*/) override {
    if (errors_ != nullptr) errors_->push_back(error);
  }

 private:
  std::vector<std::string>* errors_;
};

/// Has the first tokens of prompts that count from 0 on. Moves wait to be answered.
class PlayedArchive final : public Archive {
 public:
  [[nodiscard]] bool Serves(int rank) const override { return rank != 1; }
  [[nodiscard]] int64_t Kept(std::span<const int32_t> tokens, bool /*long_angles*/) override {
    int64_t same = 0;
    while (same < std::min<int64_t>(kept, std::ssize(tokens)) && tokens[static_cast<size_t>(same)] == same) ++same;
    return same / kPageRows * kPageRows;
  }
  void Load(PageMove move) override { loads.push_back(std::move(move)); }
  void Save(PageMove move) override { saves.push_back(std::move(move)); }

  int64_t kept = 0;
  std::vector<PageMove> loads;
  std::vector<PageMove> saves;
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

TEST_F(SchedulerTest, CutsThatCannotBeMadeEndTheirRequestAlone) {
  PlayedCrew crew(2);
  Scheduler scheduler(crew, forecast_, LimitsOf(2));
  std::vector<std::string> errors;
  Request request;
  request.prompt.assign(2000, 1);
  request.prefill.ranks = 2;
  request.prefill.partition.kind = PartitionKind::kSearched;
  scheduler.Add(request, std::make_unique<Silent>(&errors));
  const SequenceId other = Add(scheduler, 0, 40);
  scheduler.Work();
  EXPECT_EQ(SequencesAndBegins(crew.step(0)), (Chunks{{other, 0}}));
  scheduler.Finish(crew.End(0));
  scheduler.Work();
  EXPECT_EQ(errors, std::vector<std::string>{"partition: nothing was searched"});
  EXPECT_EQ(SequencesAndBegins(crew.step(0)), (Chunks{{other, 40}}));
  scheduler.CancelAll();
  scheduler.Finish(crew.End(0));
  EXPECT_TRUE(scheduler.idle());
  for (const int rank : {0, 1}) EXPECT_TRUE(scheduler.pages(rank).AllAtRest());
}

TEST_F(SchedulerTest, ATokenThatCannotBeDrawnEndsItsRequestAlone) {
  PlayedCrew crew(1);
  Scheduler scheduler(crew, forecast_, LimitsOf(1));
  std::vector<std::string> errors;
  Request request;
  request.prompt = {1, 2};
  const SequenceId fails = scheduler.Add(request, std::make_unique<Silent>(&errors)).id;
  const SequenceId goes_on = Add(scheduler, 0, 40);
  scheduler.Work();
  StepResult result = crew.End(0);
  ASSERT_EQ(result.drawn.size(), 2U);
  ASSERT_EQ(result.drawn[0].sequence, fails);
  result.drawn[0].error = "a NaN";
  scheduler.Finish(std::move(result));
  scheduler.Work();
  EXPECT_EQ(errors, std::vector<std::string>{"a NaN"});
  EXPECT_EQ(SequencesAndBegins(crew.step(0)), (Chunks{{goes_on, 40}}));
}

TEST_F(SchedulerTest, WhatIsAbandonedIsToldSo) {
  PlayedCrew crew(2);
  Scheduler scheduler(crew, forecast_, LimitsOf(2));
  std::vector<std::string> errors;
  for (const int ranks : {0, 2, 2}) {
    Request request;
    request.prompt.assign(2000, 1);
    request.prefill.ranks = ranks;
    scheduler.Add(request, std::make_unique<Silent>(&errors));
  }
  scheduler.Work();
  scheduler.Abandon("no more");
  EXPECT_EQ(errors, std::vector<std::string>(3, "no more"));
  EXPECT_TRUE(scheduler.idle());
  EXPECT_TRUE(*crew.step(0)->stop);
}

TEST_F(SchedulerTest, RowsOfAnArchiveComeBeforeAPromptIsRead) {
  PlayedCrew crew(2);
  PlayedArchive archive;
  archive.kept = 1000;
  Scheduler scheduler(crew, forecast_, LimitsOf(2), &archive);
  const SequenceId first = Add(scheduler, 300, 20);
  const SequenceId second = Add(scheduler, 300, 30);
  scheduler.Work();
  ASSERT_EQ(archive.loads.size(), 1U) << "the second one waits for the rows that the first one asked for";
  const PageMove& load = archive.loads.front();
  EXPECT_EQ(load.rank, 0) << "the archive does not serve the other";
  EXPECT_EQ(std::ssize(load.tokens), 256);
  EXPECT_EQ(load.pages.size(), 2U);
  EXPECT_EQ(load.first, 0);
  EXPECT_FALSE(crew.step(0) || crew.step(1));
  scheduler.Loaded(load.id, 256);
  scheduler.Work();
  EXPECT_EQ(SequencesAndBegins(crew.step(0)), (Chunks{{first, 256}, {second, 256}}));
  EXPECT_EQ(crew.step(0)->chunks[0].pages[1], load.pages[1]);
}

TEST_F(SchedulerTest, WhatAnArchiveHasNotIsComputed) {
  PlayedCrew crew(1);
  PlayedArchive archive;
  archive.kept = 1000;
  Scheduler scheduler(crew, forecast_, LimitsOf(1), &archive);
  const SequenceId first = Add(scheduler, 600, 20);
  scheduler.Work();
  scheduler.Loaded(archive.loads.at(0).id, 128);  // its second page was damaged
  scheduler.Work();
  EXPECT_EQ(SequencesAndBegins(crew.step(0)), (Chunks{{first, 128}}));
  EXPECT_EQ(archive.loads.size(), 1U) << "it is asked once";
}

TEST_F(SchedulerTest, AnArchiveIsToldWhatThePagesWouldCost) {
  PlayedCrew crew(1);
  PlayedArchive archive;
  Scheduler scheduler(crew, forecast_, LimitsOf(1), &archive);
  Add(scheduler, 300, 200);
  scheduler.Work();
  scheduler.Finish(crew.End(0));  // 500 rows in 10 ms
  archive.kept = 1000;
  Add(scheduler, 600, 20);
  scheduler.Work();
  ASSERT_EQ(archive.loads.size(), 1U);
  EXPECT_EQ(archive.loads[0].first, 2) << "what the rank has need not come";
  ASSERT_EQ(archive.loads[0].compute_s.size(), 2U);
  for (const double seconds : archive.loads[0].compute_s) EXPECT_NEAR(seconds, 0.01 * kPageRows / 500, 1e-9);
}

TEST_F(SchedulerTest, APromptThatIsCancelledWhileItsRowsComeLeavesThemToOthers) {
  PlayedCrew crew(1);
  PlayedArchive archive;
  archive.kept = 1000;
  Scheduler scheduler(crew, forecast_, LimitsOf(1), &archive);
  const SequenceId first = Add(scheduler, 300, 20);
  scheduler.Work();
  scheduler.Cancel(first);
  EXPECT_TRUE(scheduler.idle());
  scheduler.Loaded(archive.loads.at(0).id, 256);
  EXPECT_TRUE(scheduler.pages(0).AllAtRest());
  const SequenceId second = Add(scheduler, 300, 20);
  scheduler.Work();
  EXPECT_EQ(SequencesAndBegins(crew.step(0)), (Chunks{{second, 256}}));
  EXPECT_EQ(archive.loads.size(), 1U);
}

TEST_F(SchedulerTest, PagesStayUntilTheArchiveHasThem) {
  PlayedCrew crew(1);
  PlayedArchive archive;
  Scheduler::Limits limits = LimitsOf(1);
  limits.pages = {8};
  Scheduler scheduler(crew, forecast_, limits, &archive);
  const SequenceId first = Add(scheduler, 300, 20);
  scheduler.Work();
  scheduler.Finish(crew.End(0));
  ASSERT_EQ(archive.saves.size(), 1U) << "once the prompt was read";
  EXPECT_EQ(std::ssize(archive.saves[0].tokens), 256);
  EXPECT_EQ(archive.saves[0].pages.size(), 2U);
  scheduler.Cancel(first);
  EXPECT_EQ(archive.saves.size(), 1U) << "nothing is new";
  EXPECT_EQ(scheduler.pages(0).available(), 6);
  const SequenceId large = Add(scheduler, 0, 900);
  scheduler.Work();
  EXPECT_FALSE(crew.step(0)) << "it would need the pages that are saved";
  scheduler.Saved(archive.saves[0].id);
  scheduler.Work();
  EXPECT_EQ(SequencesAndBegins(crew.step(0)), (Chunks{{large, 0}}));
  scheduler.Finish(crew.End(0));
  scheduler.Cancel(large);
  for (size_t i = 1; i < archive.saves.size(); ++i) scheduler.Saved(archive.saves[i].id);
  EXPECT_TRUE(scheduler.pages(0).AllAtRest());
}

}  // namespace
}  // namespace runahead
