// Requests: how they come, wait, answer and end.
#include "schedule/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"
#include "kv/kv_pages.h"
#include "runahead/error.h"

namespace runahead {
namespace {

double Milliseconds(double from_s, double to_s) { return (to_s - from_s) * 1e3; }

/// Its tokens whose rows are complete on its own pages.
std::span<const int32_t> CompleteTokens(const Sequence& sequence) {
  const int64_t rows = sequence.done - (sequence.copy ? sequence.copy->rows : 0);
  return std::span(sequence.tokens).first(static_cast<size_t>(rows));
}

}  // namespace

Scheduler::Scheduler(Crew& crew, Forecast& forecast, Limits limits, Archive* archive)
    : crew_(crew), forecast_(forecast), limits_(std::move(limits)), archive_(archive) {
  CHECK_EQ(limits_.pages.size(), static_cast<size_t>(crew.ranks()));
  for (const int32_t pages : limits_.pages) lanes_.emplace_back(pages);
}

SchedulerCounts Scheduler::counts() const {
  const int64_t waiting = std::ssize(waiting_[0]) + std::ssize(waiting_[1]);
  return {waiting, std::ssize(sequences_) - waiting, preempted_, waits_for_pages_};
}

EngineStatus Scheduler::Status() const {
  EngineStatus status;
  const SchedulerCounts all = counts();
  status.waiting = all.waiting;
  status.running = all.running;
  status.preempted = all.preempted;
  status.page_tokens = kPageRows;
  status.totals = totals_;
  for (const Lane& lane : lanes_) {
    RankStatus rank;
    rank.lost = lane.gone;
    rank.pages = lane.pages.pages();
    rank.pages_used = lane.pages.pages() - lane.pages.available();
    rank.pages_cached = lane.pages.evictable();
    if (lane.step) {
      rank.doing = lane.step->together ? RankActivity::kGang
                   : lane.step->reads  ? RankActivity::kReading
                                       : RankActivity::kAnswering;
    }
    rank.requests = static_cast<int>(lane.answering.size() + lane.reading.size() + (lane.gang != nullptr ? 1 : 0));
    rank.busy_s = lane.busy_s;
    rank.wait_s = lane.wait_s;
    rank.bytes_sent = lane.bytes_sent;
    status.ranks.push_back(std::move(rank));
  }
  return status;
}

std::unique_ptr<Sequence> Scheduler::NewSequence(Request request, std::unique_ptr<Listener> listener) {
  const auto tokens = std::ssize(request.prompt);
  const int64_t room = Room();
  if (tokens > std::min(limits_.context, room)) {
    throw ConfigError(fmt::format("prompt: its {} tokens are more than {}", tokens,
                                  tokens > limits_.context
                                      ? fmt::format("the model's context of {}", limits_.context)
                                      : fmt::format("the KV-cache of a rank has room for, {}", room)));
  }
  auto sequence = std::make_unique<Sequence>();
  sequence->tokens = std::move(request.prompt);
  sequence->prompt_tokens = tokens;
  sequence->most_rows = std::min(limits_.context, room);
  sequence->long_angles = forecast_.IsLong(tokens);
  sequence->request = std::move(request);
  sequence->listener = std::move(listener);
  sequence->choice = Chosen(tokens, sequence->request.prefill);
  sequence->submitted_s = crew_.Now();
  sequence->stats.prompt_tokens = tokens;
  return sequence;
}

Admission Scheduler::Add(Request request, std::unique_ptr<Listener> listener) {
  std::vector<std::unique_ptr<Listener>> listeners;
  listeners.push_back(std::move(listener));
  return Add(std::move(request), std::move(listeners));
}

Admission Scheduler::Add(Request request, std::vector<std::unique_ptr<Listener>> listeners) {
  CHECK_EQ(std::ssize(listeners), request.choices);
  RefuseWhenFull();
  std::unique_ptr<Sequence> owned = NewSequence(std::move(request), std::move(listeners.front()));
  listeners.erase(listeners.begin());
  owned->others = std::move(listeners);
  Sequence& sequence = *owned;
  sequence.archived = Archived(sequence);
  const double own_s = Predicted(sequence, std::max(Cached(sequence), sequence.archived));
  const double predicted_s = own_s > 0 ? own_s + WaitingSeconds(sequence.request.priority) : 0;
  const double deadline_s = sequence.request.ttft_deadline_s;
  if (deadline_s > 0 && predicted_s > deadline_s) {
    throw RefusedError(
        RefusedError::Reason::kDeadline, own_s <= deadline_s ? predicted_s - deadline_s : 0,
        fmt::format("deadline: the first token is predicted after {:.0f} ms, which is later than {:.0f} ms",
                    predicted_s * 1e3, deadline_s * 1e3));
  }
  sequence.id = last_id_ + 1;
  last_id_ += static_cast<SequenceId>(sequence.request.choices);
  sequences_.emplace(sequence.id, std::move(owned));
  Wait(sequence);
  return {sequence.id, predicted_s};
}

void Scheduler::BeginOthers(Sequence& sequence) {
  std::vector<std::unique_ptr<Listener>> listeners = std::exchange(sequence.others, {});
  for (size_t i = 0; i < listeners.size(); ++i) {
    auto owned = std::make_unique<Sequence>();
    Sequence& other = *owned;
    other.id = sequence.id + 1 + i;
    other.request = sequence.request;
    other.request.generation.sampling.seed += 1 + i;
    other.request.reuse_prefix = true;
    other.listener = std::move(listeners[i]);
    other.tokens = sequence.tokens;
    other.prompt_tokens = sequence.prompt_tokens;
    other.most_rows = sequence.most_rows;
    other.long_angles = sequence.long_angles;
    other.choice.members = {sequence.rank};
    other.submitted_s = sequence.submitted_s;
    other.begun_s = sequence.begun_s;
    other.stats.predicted_ttft_ms = sequence.stats.predicted_ttft_ms;
    other.stats.members = sequence.stats.members;
    other.stats.cuts = sequence.stats.cuts;
    other.stats.rounds = sequence.stats.rounds;
    sequences_.emplace(other.id, std::move(owned));
    Wait(other);
  }
}

void Scheduler::RefuseWhenFull() const {
  constexpr double kShareToBegin = 0.1;  // of those that wait, before others are asked to come again
  const int64_t waiting = counts().waiting;
  if (waiting < limits_.most_waiting) return;
  throw RefusedError(RefusedError::Reason::kQueueFull,
                     kShareToBegin * WaitingSeconds(-std::numeric_limits<int>::max()),
                     fmt::format("queue: {} requests wait already", waiting));
}

int64_t Scheduler::Cached(const Sequence& sequence) {
  const bool goes_on = sequence.choice.members.size() < 2 || sequence.choice.strategy == Strategy::kRunahead;
  int64_t most = 0;
  for (int rank = 0; goes_on && rank < crew_.ranks(); ++rank) most = std::max(most, CachedOn(rank, sequence));
  return most;
}

double Scheduler::Predicted(const Sequence& sequence, int64_t cached) const {
  constexpr int64_t kRowsWorthAGang = 512;  // for each member: fewer are read by one rank
  const GangChoice& choice = sequence.choice;
  const auto tokens = std::ssize(sequence.tokens);
  const auto members = std::max<int64_t>(1, std::ssize(choice.members));
  double whole_s = choice.predicted_s;
  if (whole_s == 0 && rate_ > 0) whole_s = forecast_.Work(0, tokens) / rate_ / static_cast<double>(members);
  if (cached == 0) return whole_s;
  if (tokens - cached < members * kRowsWorthAGang && !choice.members.empty()) {
    GangChoice alone = choice;
    alone.members = {choice.members.back()};
    alone.strategy = Strategy::kSingle;
    const double alone_s = forecast_.Seconds(alone, sequence.request.prefill, std::span(&cached, 1), cached, tokens);
    if (alone_s > 0) return alone_s;
  }
  return whole_s * forecast_.Work(cached, tokens) / forecast_.Work(0, tokens);
}

double Scheduler::PredictedLeft(const Sequence& sequence) const {
  constexpr double kPrior = 0.25;  // weight of what was predicted, against that of all that there is to read
  const auto tokens = std::ssize(sequence.tokens);
  const double work = forecast_.Work(sequence.read_from, tokens);
  const double done = forecast_.Work(sequence.read_from, sequence.done);
  const double predicted_s = Predicted(sequence, sequence.read_from);
  const double prior = predicted_s > 0 ? kPrior : 0;
  if (work == 0 || prior * work + done == 0) return 0;
  const double pace = (prior * predicted_s + crew_.Now() - sequence.reading_s) / (prior * work + done);
  return pace * (work - done);
}

void Scheduler::TellProgress(Sequence& sequence) {
  const Gang* const gang = GangOf(sequence);
  sequence.listener->OnProgress({sequence.done, std::ssize(sequence.tokens), sequence.stats.cached_tokens,
                                 PredictedLeft(sequence),
                                 gang != nullptr ? gang->choice.members : std::vector<int>{sequence.rank}});
}

double Scheduler::WaitingSeconds(int priority) const {
  if (rate_ == 0) return 0;
  double work = 0;
  for (const auto& [lower, of_priority] : waiting_work_) {
    if (lower <= -priority) work += of_priority;
  }
  const auto rest = [&](const Sequence& sequence) {
    return forecast_.Work(sequence.done, std::ssize(sequence.tokens));
  };
  for (const Lane& lane : lanes_) {
    for (const Sequence* sequence : lane.reading) work += rest(*sequence);
  }
  for (const Gang& gang : gangs_) work += rest(*gang.sequence);
  return work / rate_ / static_cast<double>(lanes_.size());
}

void Scheduler::Wait(Sequence& sequence) {
  sequence.together = KindOf(sequence) == Kind::kTogether;
  sequence.waiting_work = forecast_.Work(0, std::ssize(sequence.tokens));
  waiting_[sequence.together ? 1 : 0].emplace(sequence.order(), &sequence);
  waiting_work_[-sequence.request.priority] += sequence.waiting_work;
  admit_ = true;
}

void Scheduler::StopWaiting(Sequence& sequence) {
  Queue& queue = waiting_[sequence.together ? 1 : 0];
  if (queue.erase(sequence.order()) == 0) return;
  waiting_work_[-sequence.request.priority] -= sequence.waiting_work;
  if (waiting_[0].empty() && waiting_[1].empty()) waiting_work_.clear();  // and with it what rounding left
}

void Scheduler::Cancel(SequenceId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return;
  Sequence& sequence = *found->second;
  sequence.cancelled = true;
  if (!sequence.in_flight) return End(sequence, FinishReason::kCancelled);
  if (sequence.answering) return;  // its step is short
  Gang* const gang = GangOf(sequence);
  *(gang != nullptr ? gang->stop : LaneOf(sequence.rank).step->stop) = true;
}

void Scheduler::CancelAll() {
  std::vector<SequenceId> all;
  for (const auto& [id, sequence] : sequences_) all.push_back(id);
  for (const SequenceId id : all) Cancel(id);
}

void Scheduler::Abandon(const std::string& error) noexcept {
  for (Lane& lane : lanes_) {
    if (lane.step) *lane.step->stop = true;
  }
  waiting_ = {};
  const auto abandoned = std::exchange(sequences_, {});
  for (const auto& [id, sequence] : abandoned) {
    try {
      TellEnd(*sequence, FinishReason::kError, error);
    } catch (const std::exception&) {  // no memory to say so
    }
  }
}

void Scheduler::Work() {
  do {
    again_ = false;
    if (admit_) Admit();
    StartRounds();
    for (int rank = 0; rank < crew_.ranks(); ++rank) {
      if (!LaneOf(rank).step) StartLane(rank);
    }
    StartRounds();  // a lane without work may have been what they waited for
  } while (again_ || (admit_ && resting() && !sequences_.empty()));
}

void Scheduler::Answer(Sequence& sequence, const Drawn& drawn) {
  if (!drawn.error.empty()) return End(sequence, FinishReason::kError, drawn.error);
  const double now = crew_.Now();
  if (sequence.first_token_s < 0) sequence.first_token_s = now;
  if (sequence.last_token_s >= 0) {
    sequence.stats.longest_pause_ms =
        std::max(sequence.stats.longest_pause_ms, Milliseconds(sequence.last_token_s, now));
  }
  sequence.last_token_s = now;
  ++sequence.stats.new_tokens;
  const std::optional<FinishReason> finish = sequence.listener->OnToken(drawn);
  if (finish) return End(sequence, *finish);
  sequence.tokens.push_back(drawn.token.id);
  const bool full =
      sequence.new_tokens() >= sequence.request.generation.max_new_tokens || sequence.done >= sequence.most_rows;
  if (full) End(sequence, FinishReason::kLength);
}

void Scheduler::TellEnd(Sequence& sequence, FinishReason finish, const std::string& error) {
  CompleteStats(sequence);
  const RequestStats& stats = sequence.stats;
  totals_.requests += stats.prompt_tokens > 0 ? 1 : 0;  // other choices are the same request
  totals_.failed += finish == FinishReason::kError ? 1 : 0;
  totals_.cancelled += finish == FinishReason::kCancelled ? 1 : 0;
  totals_.prompt_tokens += stats.prompt_tokens;
  totals_.cached_tokens += stats.cached_tokens;
  totals_.new_tokens += stats.new_tokens;
  crew_.OnEnded();
  sequence.listener->OnEnd(finish, error, stats);
  for (const std::unique_ptr<Listener>& other : sequence.others) other->OnEnd(finish, error, {});
}

void Scheduler::CompleteStats(Sequence& sequence) const {
  RequestStats& stats = sequence.stats;
  const double now = crew_.Now();
  stats.queued_ms = Milliseconds(sequence.submitted_s, sequence.begun_s >= 0 ? sequence.begun_s : now);
  if (sequence.first_token_s < 0) return;
  stats.ttft_ms = Milliseconds(sequence.submitted_s, sequence.first_token_s);
  if (stats.new_tokens < 2) return;
  stats.tpot_ms =
      Milliseconds(sequence.first_token_s, sequence.last_token_s) / static_cast<double>(stats.new_tokens - 1);
}

void Scheduler::End(Sequence& sequence, FinishReason finish, const std::string& error) {
  if (Gang* gang = GangOf(sequence)) DropGang(*gang);
  if (sequence.rank >= 0) {
    const auto complete = CompleteTokens(sequence);
    LaneOf(sequence.rank)
        .pages.End(sequence.held, finish == FinishReason::kError ? complete.first(0) : complete, sequence.valid_from,
                   sequence.long_angles);
    if (finish != FinishReason::kError) Save(sequence, complete);
    admit_ = true;
  }
  Leave(sequence);
  if (sequence.sampler_on >= 0) LaneOf(sequence.sampler_on).ended.push_back(sequence.id);
  const auto owned = sequences_.extract(sequence.id);  // it is none of the scheduler's when others hear of it
  TellEnd(sequence, finish, error);
}

void Scheduler::Leave(Sequence& sequence) {
  StopWaiting(sequence);
  if (sequence.rank < 0) return;
  std::erase(LaneOf(sequence.rank).answering, &sequence);
  std::erase(LaneOf(sequence.rank).reading, &sequence);
  sequence.rank = -1;
}

void Scheduler::BackToQueue(Sequence& sequence) {
  LaneOf(sequence.rank).pages.End(sequence.held, CompleteTokens(sequence), sequence.valid_from, sequence.long_angles);
  Leave(sequence);
  sequence.done = 0;
  sequence.valid_from = 0;
  sequence.answering = false;
  sequence.copy.reset();
  sequence.long_angles = forecast_.IsLong(std::ssize(sequence.tokens));
  Wait(sequence);
}

}  // namespace runahead
