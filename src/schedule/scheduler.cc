// Requests: how they wait, where they begin, and how they end.
#include "schedule/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "base/check.h"
#include "kv/kv_pages.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr int kLookedAt = 64;             // waiting requests that may pass one that waits for a gang's end
constexpr int64_t kRowsWorthARank = 512;  // rows of a prompt for each member of a gang that nobody asked for
constexpr int64_t kRowsWorthAWait = 128;  // rows saved by waiting for the end of a prompt that is being read

/// Where a prompt can be read.
struct LanePlace {
  int64_t rows_before;  // rows before its first token, its own among them
  int rank;
  bool later;  // once a prompt has ended that is being read there, whose rows it can use

  bool operator<(const LanePlace& other) const {
    return std::tie(rows_before, rank) < std::tie(other.rows_before, other.rank);
  }
};

/// Rows that `sequence` can use once those of `reading` have ended.
int64_t RowsToCome(const Sequence& sequence, const std::vector<Sequence*>& reading) {
  int64_t most = 0;
  for (const Sequence* other : reading) {
    if (other->long_angles != sequence.long_angles) continue;
    const auto [end, unused] =
        std::mismatch(sequence.tokens.begin(), sequence.tokens.end() - 1, other->tokens.begin(), other->tokens.end());
    most = std::max<int64_t>(most, end - sequence.tokens.begin());
  }
  return most;
}

double Milliseconds(double from_s, double to_s) { return (to_s - from_s) * 1e3; }

}  // namespace

Scheduler::Scheduler(Crew& crew, Forecast& forecast, Limits limits)
    : crew_(crew), forecast_(forecast), limits_(std::move(limits)) {
  CHECK_EQ(limits_.pages.size(), static_cast<size_t>(crew.ranks()));
  for (const int32_t pages : limits_.pages) lanes_.emplace_back(pages);
}

SequenceId Scheduler::Add(Request request, std::unique_ptr<Listener> listener) {
  const auto tokens = std::ssize(request.prompt);
  const int64_t room = *std::max_element(limits_.pages.begin(), limits_.pages.end()) * kPageRows;
  if (tokens > std::min(limits_.context, room)) {
    throw ConfigError(fmt::format("prompt: its {} tokens are more than {}", tokens,
                                  tokens > limits_.context
                                      ? fmt::format("the model's context of {}", limits_.context)
                                      : fmt::format("the KV-cache of a rank has room for, {}", room)));
  }
  if (std::ssize(waiting_) >= limits_.most_waiting) {
    throw ConfigError(fmt::format("queue: {} requests wait already", waiting_.size()));
  }
  auto owned = std::make_unique<Sequence>();
  Sequence& sequence = *owned;
  sequence.id = ++last_id_;
  sequence.tokens = request.prompt;
  sequence.prompt_tokens = tokens;
  sequence.most_rows = std::min(limits_.context, room);
  sequence.long_angles = forecast_.IsLong(tokens);
  sequence.request = std::move(request);
  sequence.listener = std::move(listener);
  sequence.choice = forecast_.Choose(tokens, sequence.request.prefill);
  sequence.submitted_s = crew_.Now();
  sequence.stats.prompt_tokens = tokens;
  sequences_.emplace(sequence.id, std::move(owned));
  const double predicted_s = Predicted(sequence) + WaitingSeconds();
  const double deadline_s = sequence.request.ttft_deadline_s;
  if (deadline_s > 0 && predicted_s > deadline_s) {
    const SequenceId id = sequence.id;
    End(sequence, FinishReason::kError,
        fmt::format("deadline: the first token is predicted after {:.0f} ms, which is later than {:.0f} ms",
                    predicted_s * 1e3, deadline_s * 1e3));
    return id;
  }
  Wait(sequence);
  return sequence.id;
}

double Scheduler::Predicted(const Sequence& sequence) const {
  if (sequence.choice.predicted_s > 0) return sequence.choice.predicted_s;
  if (rate_ == 0) return 0;
  const auto members = static_cast<double>(std::max<size_t>(1, sequence.choice.members.size()));
  return forecast_.Work(0, std::ssize(sequence.tokens)) / rate_ / members;
}

double Scheduler::WaitingSeconds() const {
  double work = 0;
  for (const auto& [id, sequence] : sequences_) {
    if (!sequence->answering && sequence->missing() > 0) {
      work += forecast_.Work(sequence->done, std::ssize(sequence->tokens));
    }
  }
  return rate_ == 0 ? 0 : work / rate_ / static_cast<double>(lanes_.size());
}

void Scheduler::Wait(Sequence& sequence) {
  waiting_.emplace(std::pair(-sequence.request.priority, sequence.id), &sequence);
}

void Scheduler::Cancel(SequenceId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return;
  Sequence& sequence = *found->second;
  sequence.cancelled = true;
  if (!sequence.in_flight) return End(sequence, FinishReason::kCancelled);
  if (sequence.answering) return;  // its step is short
  for (const Lane& lane : lanes_) {
    if (!lane.step) continue;
    const bool works = std::any_of(lane.step->chunks.begin(), lane.step->chunks.end(),
                                   [&](const ChunkPlan& chunk) { return chunk.sequence == id; });
    if (works) *lane.step->stop = true;
  }
}

void Scheduler::Work() {
  Admit();
  StartRound();
  for (int rank = 0; rank < crew_.ranks(); ++rank) {
    if (!LaneOf(rank).step) StartLane(rank);
  }
  StartRound();  // a step may have sent the gang's sequence on
}

bool Scheduler::resting() const {
  return std::none_of(lanes_.begin(), lanes_.end(), [](const Lane& lane) { return lane.step.has_value(); });
}

void Scheduler::Admit() {
  int looked_at = 0;
  for (auto next = waiting_.begin(); next != waiting_.end() && looked_at < kLookedAt; ++looked_at) {
    Sequence& sequence = *next->second;
    const Placed placed = Place(sequence);
    if (placed == Placed::kNoPages) return;
    next = placed == Placed::kYes ? waiting_.erase(next) : std::next(next);
  }
}

Scheduler::Placed Scheduler::Place(Sequence& sequence) {
  const GangChoice& choice = sequence.choice;
  const int64_t rows = std::ssize(sequence.tokens);
  const auto members = std::ssize(choice.members);
  const bool worth_it = choice.asked_for || rows >= members * kRowsWorthARank;
  if (members < 2 || rows < members || !worth_it) return PlaceAlone(sequence);
  if (gang_) return Placed::kLater;
  int holder = choice.members.back();
  if (forecast_.alike() && sequence.reuses()) {
    int64_t most = -1;
    for (const int rank : choice.members) {  // the longest prefix, then the fewest answers
      const int64_t cached = LaneOf(rank).pages.Cached(sequence.tokens, rows - 1, sequence.long_angles);
      const bool calmer = LaneOf(rank).answering.size() < LaneOf(holder).answering.size();
      if (cached > most || (cached == most && calmer)) {
        most = cached;
        holder = rank;
      }
    }
  }
  return PlaceGang(sequence, holder);
}

Scheduler::Placed Scheduler::PlaceAlone(Sequence& sequence) {
  const int64_t rows = std::ssize(sequence.tokens);
  const bool waits = sequence.reuses() && !forecast_.windowed();  // rows behind a window are no prefix of all others
  std::vector<LanePlace> places;
  for (int rank = 0; rank < crew_.ranks(); ++rank) {
    Lane& lane = LaneOf(rank);
    int64_t before = 0;
    for (const Sequence* other : lane.reading) before += other->missing();
    if (before >= limits_.most_rows) continue;
    const int64_t cached = sequence.reuses() ? lane.pages.Cached(sequence.tokens, rows - 1, sequence.long_angles) : 0;
    const int64_t to_come = waits ? RowsToCome(sequence, lane.reading) : 0;
    const bool later = to_come >= cached + kRowsWorthAWait;
    places.push_back({before + rows - (later ? to_come : cached) + std::ssize(lane.answering), rank, later});
  }
  if (places.empty()) return Placed::kLater;
  std::sort(places.begin(), places.end());
  if (places.front().later) return Placed::kLater;
  std::erase_if(places, [](const LanePlace& place) { return place.later; });
  for (const auto& [before, rank, later] : places) {
    std::optional<RankPages::Start> start =
        LaneOf(rank).pages.Begin(sequence.tokens, sequence.reuses() ? rows - 1 : 0, rows, sequence.long_angles);
    if (!start) continue;
    Begin(sequence, rank, *std::move(start));
    sequence.stats.members = {rank};
    sequence.stats.cuts = {sequence.done, rows};
    LaneOf(rank).reading.push_back(&sequence);
    return Placed::kYes;
  }
  return Placed::kNoPages;
}

void Scheduler::Begin(Sequence& sequence, int rank, RankPages::Start start) {
  sequence.rank = rank;
  sequence.held = std::move(start.held);
  sequence.copy = start.copy;
  sequence.done = start.cached;
  if (forecast_.windowed()) sequence.valid_from = start.cached;
  if (sequence.begun_s >= 0) return;  // it begins again
  sequence.begun_s = crew_.Now();
  sequence.stats.cached_tokens = start.cached;
  sequence.stats.predicted_ttft_ms = (sequence.begun_s - sequence.submitted_s + Predicted(sequence)) * 1e3;
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
  if (gang_ && gang_->sequence == &sequence) DropGang();
  if (sequence.rank >= 0) {
    RankPages& pages = LaneOf(sequence.rank).pages;
    const auto complete = std::span(sequence.tokens).first(static_cast<size_t>(sequence.done));
    pages.End(sequence.held, finish == FinishReason::kError ? complete.first(0) : complete, sequence.valid_from,
              sequence.long_angles);
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
  waiting_.erase({-sequence.request.priority, sequence.id});
  if (sequence.rank < 0) return;
  std::erase(LaneOf(sequence.rank).answering, &sequence);
  std::erase(LaneOf(sequence.rank).reading, &sequence);
  sequence.rank = -1;
}

void Scheduler::BackToQueue(Sequence& sequence) {
  const auto complete = std::span(sequence.tokens).first(static_cast<size_t>(sequence.done));
  LaneOf(sequence.rank).pages.End(sequence.held, complete, sequence.valid_from, sequence.long_angles);
  Leave(sequence);
  sequence.done = 0;
  sequence.valid_from = 0;
  sequence.answering = false;
  sequence.copy.reset();
  sequence.long_angles = forecast_.IsLong(std::ssize(sequence.tokens));
  Wait(sequence);
}

void Scheduler::CancelAll() {
  std::vector<SequenceId> all;
  for (const auto& [id, sequence] : sequences_) all.push_back(id);
  for (const SequenceId id : all) Cancel(id);
}

}  // namespace runahead
