#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "kv/kv_pages.h"
#include "runahead/error.h"
#include "tests/schedule/simulated.h"

namespace runahead {
namespace {

int64_t Between(std::mt19937& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

/// Asks for `count` requests, the next one whenever one has ended, `at_once` at a time.
class Stream {
 public:
  Stream(SimulatedRanks& ranks, int64_t count, int at_once, std::function<Request(uint64_t)> make)
      : ranks_(ranks), left_(count), make_(std::move(make)) {
    ranks.crew.At(0, [this, at_once] {
      for (int i = 0; i < at_once; ++i) Next();
    });
  }
  int64_t ended = 0;
  int64_t right = 0;  // ended with all that was asked for
  int64_t most_alive = 0;

 private:
  class End final : public Listener {
   public:
    End(Stream& stream, int64_t tokens) : stream_(stream), tokens_(tokens) {}
    void OnProgress(const PromptProgress& /*progress*/) override {}
    std::optional<FinishReason> OnToken(const Drawn& /*drawn*/) override { return std::nullopt; }
    void OnEnd(FinishReason finish, const std::string& /*error*/, const RequestStats& stats) override {
      ++stream_.ended;
      if (finish == FinishReason::kLength && stats.new_tokens == tokens_) ++stream_.right;
      Stream& stream = stream_;
      stream.ranks_.crew.At(0, [&stream] { stream.Next(); });
    }

   private:
    Stream& stream_;
    int64_t tokens_;
  };

  void Next() {
    if (left_ == 0) return;
    --left_;
    Request request = make_(++number_);
    const int64_t answer = request.generation.max_new_tokens;
    ranks_.scheduler->Add(std::move(request), std::make_unique<End>(*this, answer));
    const SchedulerCounts counts = ranks_.scheduler->counts();
    most_alive = std::max(most_alive, counts.waiting + counts.running);
  }

  SimulatedRanks& ranks_;
  int64_t left_;
  std::function<Request(uint64_t)> make_;
  uint64_t number_ = 0;
};

// Requests come and go for long: none is lost, no page stays behind, and no more sequences live than were asked for.
TEST(SimulatedRequestsTest, HundredThousandRequestsLeaveNothingBehind) {
  const WorkShape shape = SevenBillion();
  SimulatedRanks ranks(shape, Gpus(shape, 4), /*pages=*/40);
  std::mt19937 random(1);
  Stream stream(ranks, 100'000, 64, [&](uint64_t number) {
    return Prompt(Between(random, 20, 400), static_cast<int>(Between(random, 1, 200)), number % 1000);
  });
  ranks.Run();
  EXPECT_EQ(stream.ended, 100'000);
  EXPECT_EQ(stream.right, 100'000);
  EXPECT_LE(stream.most_alive, 64);
  EXPECT_GT(ranks.scheduler->counts().preempted, 0);
  EXPECT_TRUE(ranks.scheduler->idle());
  EXPECT_TRUE(ranks.scheduler->resting());
  EXPECT_TRUE(ranks.AllAtRest());
}

// Counted are rows of prompts and answers that running sequences have, at the first moment at which a request waits
// for pages. The others are what last pages have too many, and what is too little for the next prompt.
TEST(SimulatedRequestsTest, ThePoolIsFullBeforeARequestWaitsForPages) {
  const WorkShape shape = SevenBillion();
  constexpr int32_t kPages = 4096;
  SimulatedRanks ranks(shape, Gpus(shape, 1), kPages);
  std::mt19937 random(2);
  std::vector<int64_t> rows;  // [requests], of prompt and answer so far
  for (uint64_t i = 0; i < 400; ++i) {
    Request request = Prompt(Between(random, 100, 4000), 2000, i);
    rows.push_back(std::ssize(request.prompt));
    ranks.Ask(0.05 * static_cast<double>(i), std::move(request));
  }
  double pages = 0;
  double used = 0;
  ranks.on_token = [&](size_t index, int64_t /*answered*/) {
    ++rows[index];
    const SchedulerCounts counts = ranks.scheduler->counts();
    if (pages > 0 || counts.waits_for_pages == 0) return;
    pages = static_cast<double>(ranks.PagesTaken()) / kPages;
    const auto running = rows.begin() + counts.running;  // none has ended, and they began in their order
    used = static_cast<double>(std::accumulate(rows.begin(), running, int64_t{0})) /
           static_cast<double>(kPages * kPageRows);
  };
  ranks.Run();
  EXPECT_GE(used, 0.96);
  EXPECT_LE(used, pages);
  EXPECT_LE(pages, 1);
  for (size_t i = 0; i < ranks.asked(); ++i) EXPECT_EQ(ranks.Of(i).stats.new_tokens, 2000) << i;
  EXPECT_GT(ranks.scheduler->counts().preempted, 0);
  EXPECT_TRUE(ranks.AllAtRest());
}

TEST(SimulatedRequestsTest, CancelsAtRandomMomentsLeaveNothingBehind) {
  const WorkShape shape = SevenBillion();
  SimulatedRanks ranks(shape, Gpus(shape, 4), /*pages=*/300);
  std::mt19937 random(3);
  std::uniform_real_distribution<double> seconds(0, 60);
  for (uint64_t i = 0; i < 1000; ++i) {
    const int64_t tokens = i % 10 == 0 ? Between(random, 4000, 30'000) : Between(random, 10, 2000);
    const double at_s = seconds(random);
    const size_t index = ranks.Ask(at_s, Prompt(tokens, static_cast<int>(Between(random, 1, 100)), i % 300));
    ranks.CancelAt(at_s + 0.05 * seconds(random), index);
  }
  ranks.Run();
  int cancelled = 0;
  for (size_t i = 0; i < ranks.asked(); ++i) {
    const SimulatedOutcome& outcome = ranks.Of(i);
    EXPECT_EQ(outcome.ends, 1) << i;
    EXPECT_NE(outcome.finish, FinishReason::kError) << outcome.error;
    cancelled += outcome.finish == FinishReason::kCancelled ? 1 : 0;
  }
  EXPECT_GT(cancelled, 50);
  EXPECT_LT(cancelled, 1000);
  EXPECT_TRUE(ranks.scheduler->idle());
  EXPECT_TRUE(ranks.AllAtRest());
}

// Ranks go at random moments, some just behind a step's result, and come back, up to three of four at once: every
// request gets its whole answer.
TEST(SimulatedRequestsTest, LostRanksCostNoRequest) {
  const WorkShape shape = SevenBillion();
  int recomputed = 0;
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    ClusterCosts costs = Gpus(shape, 4);
    if (seed % 3 == 0) costs.devices[1] = CostFromRates(shape, {"slow", 2.5e14, 2e14, 1.6e12, 3e-5});
    SimulatedRanks ranks(shape, costs, /*pages=*/300);
    std::uniform_real_distribution<double> seconds(0, 20);
    for (uint64_t i = 0; i < 200; ++i) {
      const int64_t tokens = i % 10 == 0 ? Between(random, 4000, 30'000) : Between(random, 10, 2000);
      ranks.Ask(seconds(random), Prompt(tokens, static_cast<int>(Between(random, 1, 100)), i % 60));
    }
    for (const int rank : {1, 2, 3}) {
      for (double at_s = seconds(random) / 4; at_s < 20;) {
        const double back_s = at_s + seconds(random) / 8;
        ranks.LoseAt(at_s, back_s, rank, /*answered=*/Between(random, 0, 1) == 1);
        at_s = back_s + 0.01 + seconds(random) / 4;
      }
    }
    ranks.Run();
    for (size_t i = 0; i < ranks.asked(); ++i) {
      const SimulatedOutcome& outcome = ranks.Of(i);
      EXPECT_EQ(outcome.ends, 1) << i;
      EXPECT_EQ(outcome.finish, FinishReason::kLength) << outcome.error;
      int64_t done = 0;
      for (const auto& [at_s, progress] : outcome.progress) {
        recomputed += progress.done < done ? 1 : 0;
        done = progress.done;
      }
    }
    EXPECT_TRUE(ranks.scheduler->idle());
    EXPECT_TRUE(ranks.AllAtRest());
    EXPECT_EQ(ranks.rows.missed(), 0);
  }
  EXPECT_GT(recomputed, 100);
}

// A rank that reads a long prompt is lost: what the other has of it in all layers is where it goes on. That is all
// where it reads the end, and else the first round.
TEST(SimulatedRequestsTest, SurvivorsKeepTheirRowsOfALongPrompt) {
  const WorkShape shape = SevenBillion();
  Scheduler::Limits limits;
  limits.max_pause_s = 0.02;  // rounds of 0.1 s, a sixth of the whole
  SimulatedRanks whole(shape, Gpus(shape, 2), /*pages=*/500, limits);
  const size_t undisturbed = whole.Ask(0, Prompt(40'000, 1, 1));
  whole.Run();
  ASSERT_EQ(whole.Of(undisturbed).stats.members.size(), 2U);
  const int last = whole.Of(undisturbed).stats.members.back();
  for (const int rank : {0, 1}) {
    SimulatedRanks ranks(shape, Gpus(shape, 2), /*pages=*/500, limits);
    const size_t request = ranks.Ask(0, Prompt(40'000, 1, 1));
    ranks.LoseAt(0.8e-3 * whole.Of(undisturbed).stats.ttft_ms, 1000, rank);
    ranks.Run();
    const SimulatedOutcome& outcome = ranks.Of(request);
    EXPECT_EQ(outcome.finish, FinishReason::kLength) << outcome.error;
    bool went_on = false;
    for (size_t i = 1; i < outcome.progress.size(); ++i) {
      went_on = went_on || (outcome.progress[i].second.members == std::vector<int>{1 - rank} &&
                            outcome.progress[i].second.done > 10'000);
    }
    EXPECT_TRUE(went_on) << rank;
    EXPECT_LT(outcome.stats.ttft_ms, (rank == last ? 2.8 : 1.6) * whole.Of(undisturbed).stats.ttft_ms);
    EXPECT_EQ(ranks.rows.missed(), 0);
  }
}

// What fits no cache that is left ends with an error that says so, and holds up nobody.
TEST(SimulatedRequestsTest, WhatFitsNoRankThatIsLeftEnds) {
  const WorkShape shape = SevenBillion();
  Scheduler::Limits limits;
  limits.pages = {20, 300};
  SimulatedRanks ranks(shape, Gpus(shape, 2), 0, limits);
  const size_t too_long = ranks.Ask(0, Prompt(30'000, 300, 1));
  const size_t later = ranks.Ask(0, Prompt(30'000, 300, 2));
  const size_t fits = ranks.Ask(0, Prompt(1000, 300, 3));
  ranks.LoseAt(0.5, 1000, 1);
  ranks.Run();
  for (const size_t index : {too_long, later}) {
    EXPECT_EQ(ranks.Of(index).finish, FinishReason::kError);
    EXPECT_NE(ranks.Of(index).error.find("any rank that is left"), std::string::npos) << ranks.Of(index).error;
  }
  EXPECT_EQ(ranks.Of(fits).finish, FinishReason::kLength);
  EXPECT_TRUE(ranks.AllAtRest());
}

// Eight ranks and prompts that ask for two: gangs run side by side, and all share the links that fail when one of
// them is stopped.
TEST(SimulatedRequestsTest, AStoppedGangHarmsNoOther) {
  const WorkShape shape = SevenBillion();
  SimulatedRanks ranks(shape, Gpus(shape, 8), /*pages=*/1000);
  std::vector<size_t> kept;
  for (uint64_t i = 0; i < 40; ++i) {
    Request request = Prompt(20'000, 20, i);
    request.prefill.ranks = 2;
    const size_t index = ranks.Ask(0, std::move(request));
    if (i % 4 == 0) {
      ranks.CancelAt(0.1 + 0.07 * static_cast<double>(i), index);
    } else {
      kept.push_back(index);
    }
  }
  int at_work = 0;  // ranks
  ranks.crew.At(0.05, [&] {
    for (int rank = 0; rank < 8; ++rank) at_work += ranks.scheduler->pages(rank).available() < 1000 ? 1 : 0;
  });
  ranks.Run();
  EXPECT_EQ(at_work, 8) << "some ranks had nothing to do";
  for (const size_t index : kept) {
    EXPECT_EQ(ranks.Of(index).finish, FinishReason::kLength) << ranks.Of(index).error;
    EXPECT_EQ(ranks.Of(index).stats.members.size(), 2U);
  }
  EXPECT_TRUE(ranks.AllAtRest());
}

TEST(SimulatedRequestsTest, HigherPrioritiesBeginFirst) {
  const WorkShape shape = SevenBillion();
  SimulatedRanks ranks(shape, Gpus(shape, 1), /*pages=*/40);
  std::vector<size_t> usual;
  for (uint64_t i = 0; i < 20; ++i) usual.push_back(ranks.Ask(0, Prompt(4000, 50, i)));
  Request urgent = Prompt(4000, 50, 99);
  urgent.priority = 1;
  const size_t first = ranks.Ask(0.01, std::move(urgent));
  ranks.Run();
  EXPECT_LT(ranks.Of(first).stats.ttft_ms, ranks.Of(usual[3]).stats.ttft_ms);
  EXPECT_LT(ranks.Of(usual[0]).ended_s, ranks.Of(usual[19]).ended_s);
}

TEST(SimulatedRequestsTest, RefusesWhatDoesNotFit) {
  const WorkShape shape = SevenBillion();
  Scheduler::Limits limits;
  limits.most_waiting = 3;
  SimulatedRanks ranks(shape, Gpus(shape, 1), /*pages=*/8, limits);
  const auto add = [&](int64_t tokens) { (void)ranks.scheduler->Add(Prompt(tokens, 1, 1), nullptr); };
  try {
    add(8 * kPageRows + 1);
    FAIL() << "a prompt larger than the cache was taken";
  } catch (const ConfigError& error) {
    EXPECT_EQ(std::string(error.what()),
              "prompt: its 1025 tokens are more than the KV-cache of a rank has room for, 1024");
  }
  for (uint64_t i = 0; i < 3; ++i) ranks.Ask(0, Prompt(8 * kPageRows, 1, i));
  ranks.crew.At(0, [&] {
    EXPECT_EQ(ranks.scheduler->counts().waiting, 3);
    try {
      add(1);
      FAIL() << "one more than may wait was taken";
    } catch (const RefusedError& error) {
      EXPECT_EQ(error.reason(), RefusedError::Reason::kQueueFull);
    }
  });
  ranks.Run();
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(ranks.Of(i).stats.new_tokens, 1);
}

TEST(SimulatedRequestsTest, RefusesADeadlineThatCannotBeMetAtOnce) {
  const WorkShape shape = SevenBillion();
  SimulatedRanks ranks(shape, Gpus(shape, 1), /*pages=*/4000);
  Request hopeless = Prompt(32'000, 1, 1);
  hopeless.ttft_deadline_s = 0.01;
  const size_t refused = ranks.Ask(0, std::move(hopeless));
  Request easy = Prompt(500, 1, 2);
  easy.ttft_deadline_s = 1;
  const size_t met = ranks.Ask(0.1, easy);
  // Behind a second's and more worth of prompts the same request comes too late.
  for (uint64_t i = 0; i < 20; ++i) ranks.Ask(0.2, Prompt(8000, 1, 100 + i));
  easy.prompt.back() = 1;
  const size_t queued = ranks.Ask(0.3, easy);
  easy.priority = 1;
  const size_t ahead = ranks.Ask(0.3, easy);
  ranks.Run();
  ASSERT_TRUE(ranks.Of(refused).refused);
  EXPECT_EQ(ranks.Of(refused).ends, 0);
  EXPECT_EQ(ranks.Of(refused).ended_s, 0);
  EXPECT_EQ(ranks.Of(refused).refused->reason(), RefusedError::Reason::kDeadline);
  EXPECT_EQ(ranks.Of(refused).refused->retry_after_s(), 0) << "no wait makes it shorter";
  EXPECT_EQ(std::string(ranks.Of(refused).refused->what()).find("deadline: "), 0U);
  EXPECT_EQ(ranks.Of(met).finish, FinishReason::kLength);
  ASSERT_TRUE(ranks.Of(queued).refused);
  EXPECT_EQ(ranks.Of(queued).ended_s, 0.3);
  EXPECT_GT(ranks.Of(queued).refused->retry_after_s(), 0.5);
  EXPECT_EQ(ranks.Of(ahead).finish, FinishReason::kLength);
}

TEST(SimulatedRequestsTest, AFullQueueSaysWhenToComeAgain) {
  const WorkShape shape = SevenBillion();
  Scheduler::Limits limits;
  limits.most_waiting = 40;
  SimulatedRanks ranks(shape, Gpus(shape, 1), /*pages=*/4000, limits);
  ranks.Ask(0, Prompt(2000, 1, 1));  // its time is seen
  for (uint64_t i = 0; i < 40; ++i) ranks.Ask(1, Prompt(8000, 1, 10 + i));
  const size_t early = ranks.Ask(1, Prompt(100, 1, 2));
  ranks.Run();
  ASSERT_TRUE(ranks.Of(early).refused);
  EXPECT_EQ(ranks.Of(early).refused->reason(), RefusedError::Reason::kQueueFull);
  const double begins_s = ranks.Of(4).ended_s - 1;  // time until a tenth of them have been read
  EXPECT_NEAR(ranks.Of(early).refused->retry_after_s(), begins_s, 0.3 * begins_s);
}

// What is told of a prompt phase: from its beginning to its end, with times that come true.
TEST(SimulatedRequestsTest, TheProgressOfAPromptIsToldWithTheTimeLeft) {
  const WorkShape shape = SevenBillion();
  for (const int count : {1, 4}) {
    SimulatedRanks ranks(shape, Gpus(shape, count), /*pages=*/2000);
    for (uint64_t i = 0; i < 4; ++i) ranks.Ask(0, Prompt(1000, 1000, i));
    const size_t index = ranks.Ask(2, Prompt(64'000, 1, 100));
    const size_t second = ranks.Ask(30, Prompt(64'100, 1, 100));
    ranks.Run();
    const SimulatedOutcome& first = ranks.Of(index);
    const double ttft_s = first.stats.ttft_ms / 1e3;
    EXPECT_NEAR(first.predicted_ttft_s, ttft_s, 0.35 * ttft_s) << count << " ranks";
    ASSERT_GE(first.progress.size(), 4U);
    EXPECT_EQ(first.progress.front().first, 2.0 + first.stats.queued_ms / 1e3);
    EXPECT_EQ(first.progress.front().second.done, 0);
    EXPECT_EQ(first.progress.back().second.done, 64'000);
    EXPECT_EQ(first.progress.back().second.left_s, 0);
    for (size_t i = 0; i < first.progress.size(); ++i) {
      const auto& [time_s, progress] = first.progress[i];
      EXPECT_EQ(progress.total, 64'000);
      EXPECT_EQ(progress.members.size(), static_cast<size_t>(count));
      EXPECT_NEAR(progress.left_s, 2 + ttft_s - time_s, 0.25 * ttft_s) << count << " ranks, event " << i;
      EXPECT_GT(progress.done, i == 0 ? -1 : first.progress[i - 1].second.done);
    }
    const SimulatedOutcome& again = ranks.Of(second);
    EXPECT_EQ(again.progress.front().second.cached, 64'000);
    EXPECT_EQ(again.progress.front().second.done, 64'000);
    EXPECT_NEAR(again.predicted_ttft_s, again.stats.ttft_ms / 1e3, 0.5 * again.stats.ttft_ms / 1e3);
  }
}

// The whole pool is what a sequence takes, and it finds most of its rows as a prefix.
TEST(SimulatedRequestsTest, ASequenceAsLargeAsThePoolRunsOnItsOwnPrefix) {
  const WorkShape shape = SevenBillion();
  SimulatedRanks ranks(shape, Gpus(shape, 1), /*pages=*/8);
  const size_t first = ranks.Ask(0, Prompt(8 * kPageRows - 100, 1, 1));
  const size_t again = ranks.Ask(1, Prompt(8 * kPageRows - 20, 20, 1));
  ranks.Run();
  EXPECT_EQ(ranks.Of(first).ends, 1);
  EXPECT_EQ(ranks.Of(again).stats.new_tokens, 20);
  EXPECT_GT(ranks.Of(again).stats.cached_tokens, 0);
  EXPECT_TRUE(ranks.AllAtRest());
}

// Ranks whose pools differ: the long prompt goes where there is room for it.
TEST(SimulatedRequestsTest, LongPromptsGoWhereThereIsRoom) {
  const WorkShape shape = SevenBillion();
  Scheduler::Limits limits;
  limits.pages = {300, 20};
  SimulatedRanks ranks(shape, Gpus(shape, 2), 0, limits);
  std::vector<size_t> all;
  for (uint64_t i = 0; i < 4; ++i) all.push_back(ranks.Ask(0, Prompt(30'000, 300, i)));
  ranks.Run();
  for (const size_t index : all) EXPECT_EQ(ranks.Of(index).stats.new_tokens, 300);
  EXPECT_TRUE(ranks.AllAtRest());
}

// A prefix on one of two ranks: over fast links both read the rest, over slow ones the holder alone, which is sooner.
// Where both are asked for, slow ones read it again.
TEST(SimulatedRequestsTest, APrefixIsHandedOverWhereThatIsSooner) {
  const WorkShape shape = SevenBillion();
  std::vector<double> ttft_ms;
  for (const double bytes_per_s : {3.7e11, 1e9}) {
    ClusterCosts costs = Gpus(shape, 2);
    costs.links = LinkTable(2, {1e-5, bytes_per_s, 2e-5, Mover::kEngine}, Sharing::kPorts);
    SimulatedRanks linked(shape, costs, /*pages=*/500);
    Request first = Prompt(8000, 1, 1);
    first.prefill.strategy = Strategy::kSingle;
    linked.Ask(0, std::move(first));
    const size_t second = linked.Ask(2, Prompt(16'000, 1, 1));
    linked.Run();
    EXPECT_EQ(linked.Of(second).stats.cached_tokens, 8000);
    EXPECT_EQ(linked.Of(second).stats.members.size(), bytes_per_s > 1e10 ? 2U : 1U);
    ttft_ms.push_back(linked.Of(second).stats.ttft_ms);
  }
  EXPECT_LT(ttft_ms[0], 0.7 * ttft_ms[1]);
}

// Eight ranks are asked for: a short prefix is handed over to seven of them while they work, a long one would take
// longer than reading it again.
TEST(SimulatedRequestsTest, APrefixIsReadAgainWhereThatIsSooner) {
  const WorkShape shape = SevenBillion();
  for (const int64_t prefix : {2000, 8000}) {
    SimulatedRanks ranks(shape, Gpus(shape, 8), /*pages=*/500);
    Request first = Prompt(prefix, 1, 1);
    first.prefill.strategy = Strategy::kSingle;
    ranks.Ask(0, std::move(first));
    Request request = Prompt(16'000, 1, 1);
    request.prefill.ranks = 8;
    const size_t over_all = ranks.Ask(2, std::move(request));
    ranks.Run();
    EXPECT_EQ(ranks.Of(over_all).stats.members.size(), 8U);
    EXPECT_EQ(ranks.Of(over_all).stats.cached_tokens, prefix == 2000 ? 2000 : 0);
  }
}

struct LongBesideAnswers {
  double ttft_ms = 0;
  double longest_pause_ms = 0;
  double step_ms = 0;  // of answers alone
  size_t members = 0;
};

LongBesideAnswers ReadLong(int ranks_count, int answers, double max_pause_s) {
  const WorkShape shape = SevenBillion();
  Scheduler::Limits limits;
  limits.max_pause_s = max_pause_s;
  SimulatedRanks ranks(shape, Gpus(shape, ranks_count), /*pages=*/2000, limits);
  std::vector<size_t> running;
  for (int i = 0; i < answers; ++i) {
    running.push_back(ranks.Ask(0.001 * i, Prompt(1000, 1500, static_cast<uint64_t>(i))));
  }
  const size_t prompt = ranks.Ask(3, Prompt(32'000, 1, 1000));
  ranks.Run();
  LongBesideAnswers seen;
  seen.ttft_ms = ranks.Of(prompt).stats.ttft_ms;
  seen.members = ranks.Of(prompt).stats.members.size();
  for (const size_t index : running) {
    EXPECT_EQ(ranks.Of(index).stats.new_tokens, 1500);
    seen.longest_pause_ms = std::max(seen.longest_pause_ms, ranks.Of(index).stats.longest_pause_ms);
    seen.step_ms = std::max(seen.step_ms, ranks.Of(index).stats.tpot_ms);
  }
  return seen;
}

TEST(SimulatedRequestsTest, ALongPromptLetsAnswersGoOnAndIsHardlySlower) {
  for (const int ranks : {1, 2, 4, 8}) {
    const LongBesideAnswers alone = ReadLong(ranks, 0, 0.2);
    const LongBesideAnswers beside = ReadLong(ranks, 2 * ranks, 0.2);
    SCOPED_TRACE(testing::Message() << ranks << " ranks: TTFT " << alone.ttft_ms << " ms alone, " << beside.ttft_ms
                                    << " beside answers, longest pause " << beside.longest_pause_ms << ", mean step "
                                    << beside.step_ms);
    EXPECT_EQ(beside.members, static_cast<size_t>(ranks));
    EXPECT_LE(beside.ttft_ms, 1.25 * alone.ttft_ms);
    EXPECT_LE(beside.longest_pause_ms, 200 + beside.step_ms);
  }
}

double MeanTtft(const PrefillOptions& policy, int ranks_count, double per_rank_s) {
  const WorkShape shape = SevenBillion();
  SimulatedRanks ranks(shape, Gpus(shape, ranks_count), /*pages=*/1500);
  std::mt19937 random(7);
  double at_s = 0;
  std::vector<size_t> all;
  for (uint64_t i = 0; i < 400; ++i) {
    at_s += std::exponential_distribution<double>(per_rank_s * ranks_count)(random);
    const int64_t tokens = i % 8 == 0 ? Between(random, 8000, 32'000) : Between(random, 50, 1500);
    Request request = Prompt(tokens, static_cast<int>(Between(random, 10, 150)), i);
    request.prefill = policy;
    all.push_back(ranks.Ask(at_s, std::move(request)));
  }
  ranks.Run();
  double sum = 0;
  for (const size_t index : all) {
    EXPECT_EQ(ranks.Of(index).finish, FinishReason::kLength);
    sum += ranks.Of(index).stats.ttft_ms;
  }
  return sum / static_cast<double>(all.size());
}

TEST(SimulatedRequestsTest, GangAndSpreadGivesTheFirstTokenSoonest) {
  for (const double per_rank_s : {2.5, 5.0, 8.0}) {
    for (const int ranks : {2, 4, 8}) {
      PrefillOptions alone;
      alone.strategy = Strategy::kSingle;
      PrefillOptions over_all;
      over_all.ranks = ranks;
      const double best = MeanTtft({}, ranks, per_rank_s);
      const double single = MeanTtft(alone, ranks, per_rank_s);
      const double all = MeanTtft(over_all, ranks, per_rank_s);
      EXPECT_LT(best, single) << ranks << " ranks, " << per_rank_s << " requests per second and rank";
      EXPECT_LT(best, all) << ranks << " ranks, " << per_rank_s << " requests per second and rank";
    }
  }
}

}  // namespace
}  // namespace runahead
