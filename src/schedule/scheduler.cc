// Requests: how they come, wait, answer and end.
#include "schedule/scheduler.h"

#include <fmt/format.h>

#include <algorithm>

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

Scheduler::Scheduler(Crew& crew, Forecast& forecast, Limits limits)
    : crew_(crew), forecast_(forecast), limits_(std::move(limits)) {
  CHECK_EQ(limits_.pages.size(), static_cast<size_t>(crew.ranks()));
  for (const int32_t pages : limits_.pages) lanes_.emplace_back(pages);
}

SchedulerCounts Scheduler::counts() const {
  const int64_t waiting = std::ssize(waiting_[0]) + std::ssize(waiting_[1]);
  return {waiting, std::ssize(sequences_) - waiting, preempted_, waits_for_pages_};
}

std::unique_ptr<Sequence> Scheduler::NewSequence(Request request, std::unique_ptr<Listener> listener) const {
  const auto tokens = std::ssize(request.prompt);
  const int64_t room = *std::max_element(limits_.pages.begin(), limits_.pages.end()) * kPageRows;
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
  sequence->choice = forecast_.Choose(tokens, sequence->request.prefill);
  sequence->submitted_s = crew_.Now();
  sequence->stats.prompt_tokens = tokens;
  return sequence;
}

SequenceId Scheduler::Add(Request request, std::unique_ptr<Listener> listener) {
  if (counts().waiting >= limits_.most_waiting) {
    throw ConfigError(fmt::format("queue: {} requests wait already", counts().waiting));
  }
  std::unique_ptr<Sequence> owned = NewSequence(std::move(request), std::move(listener));
  Sequence& sequence = *owned;
  const SequenceId id = sequence.id = ++last_id_;
  sequences_.emplace(id, std::move(owned));
  const double deadline_s = sequence.request.ttft_deadline_s;
  if (deadline_s > 0) {
    const double predicted_s = Predicted(sequence) + WaitingSeconds(sequence.request.priority);
    if (predicted_s > deadline_s) {
      End(sequence, FinishReason::kError,
          fmt::format("deadline: the first token is predicted after {:.0f} ms, which is later than {:.0f} ms",
                      predicted_s * 1e3, deadline_s * 1e3));
      return id;
    }
  }
  Wait(sequence);
  return id;
}

double Scheduler::Predicted(const Sequence& sequence) const {
  if (sequence.choice.predicted_s > 0) return sequence.choice.predicted_s;
  if (rate_ == 0) return 0;
  const auto members = static_cast<double>(std::max<size_t>(1, sequence.choice.members.size()));
  return forecast_.Work(0, std::ssize(sequence.tokens)) / rate_ / members;
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
  stopped_one_ = stopped_one_ || gang != nullptr;
  *(gang != nullptr ? gang->stop : LaneOf(sequence.rank).step->stop) = true;
}

void Scheduler::CancelAll() {
  std::vector<SequenceId> all;
  for (const auto& [id, sequence] : sequences_) all.push_back(id);
  for (const SequenceId id : all) Cancel(id);
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

void Scheduler::End(Sequence& sequence, FinishReason finish, const std::string& error) {
  if (Gang* gang = GangOf(sequence)) DropGang(*gang);
  if (sequence.rank >= 0) {
    const auto complete = CompleteTokens(sequence);
    LaneOf(sequence.rank)
        .pages.End(sequence.held, finish == FinishReason::kError ? complete.first(0) : complete, sequence.valid_from,
                   sequence.long_angles);
    admit_ = true;
  }
  Leave(sequence);
  if (sequence.sampler_on >= 0) LaneOf(sequence.sampler_on).ended.push_back(sequence.id);
  RequestStats& stats = sequence.stats;
  const double now = crew_.Now();
  stats.queued_ms = Milliseconds(sequence.submitted_s, sequence.begun_s >= 0 ? sequence.begun_s : now);
  if (sequence.first_token_s >= 0) {
    stats.ttft_ms = Milliseconds(sequence.submitted_s, sequence.first_token_s);
    if (stats.new_tokens > 1) {
      stats.tpot_ms =
          Milliseconds(sequence.first_token_s, sequence.last_token_s) / static_cast<double>(stats.new_tokens - 1);
    }
  }
  sequence.listener->OnEnd(finish, error, stats);
  sequences_.erase(sequence.id);
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
  ++preempted_;
  Wait(sequence);
}

}  // namespace runahead
