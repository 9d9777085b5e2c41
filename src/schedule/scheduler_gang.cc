// A long prompt on several ranks, in rounds.
#include <algorithm>

#include "base/check.h"
#include "kv/kv_pages.h"
#include "schedule/scheduler.h"

namespace runahead {
namespace {

/// Whether a strategy can begin behind rows that are there already, and so go in rounds.
bool GoesOn(Strategy strategy) { return strategy == Strategy::kRunahead; }

}  // namespace

bool Scheduler::InGang(int rank) const {
  return gang_ &&
         std::find(gang_->choice.members.begin(), gang_->choice.members.end(), rank) != gang_->choice.members.end();
}

Scheduler::Placed Scheduler::PlaceGang(Sequence& sequence, int holder) {
  const int64_t rows = std::ssize(sequence.tokens);
  const bool reuses = sequence.reuses() && GoesOn(sequence.choice.strategy);
  std::optional<RankPages::Start> start =
      LaneOf(holder).pages.Begin(sequence.tokens, reuses ? rows - 1 : 0, rows, sequence.long_angles);
  if (!start) return Placed::kNoPages;
  Begin(sequence, holder, *std::move(start));
  Gang gang;
  gang.sequence = &sequence;
  gang.choice = sequence.choice;
  std::vector<int>& members = gang.choice.members;
  const auto own = std::find(members.begin(), members.end(), holder);
  CHECK(own != members.end());
  std::rotate(own, own + 1, members.end());  // the holder is the last one
  gang.began_s = crew_.Now();
  for (const int member : members) {
    if (member == holder) {
      gang.pages.emplace_back();  // the sequence's own
      gang.held.push_back(sequence.done);
      gang.copies.push_back(sequence.copy);
      continue;
    }
    std::optional<RankPages::Start> part =
        LaneOf(member).pages.Begin(sequence.tokens, reuses ? sequence.done : 0, /*rows=*/0, sequence.long_angles);
    if (!part) part.emplace();
    gang.pages.push_back(std::move(part->held));
    gang.held.push_back(part->cached);
    gang.copies.push_back(part->copy);
  }
  sequence.stats.members = members;
  gang_ = std::move(gang);
  return Placed::kYes;
}

int64_t Scheduler::RoundEnd() const {
  constexpr double kPausesWhenAlone = 5;
  constexpr int64_t kRowsBeforeItIsKnown = 1024;  // of each member
  const Gang& gang = *gang_;
  const int64_t end = std::ssize(gang.sequence->tokens);
  const int64_t begin = gang.sequence->done;
  if (!GoesOn(gang.choice.strategy)) return end;
  const auto members = static_cast<int>(gang.choice.members.size());
  bool others = false;
  for (const int member : gang.choice.members) {
    const Lane& lane = lanes_.at(static_cast<size_t>(member));
    others = others || !lane.answering.empty() || !lane.reading.empty();
  }
  const double seconds = (others ? 1 : kPausesWhenAlone) * limits_.max_pause_s;
  const int64_t most = std::min(end - begin, limits_.most_rows * members);
  const int64_t rows =
      rate_ == 0 ? std::min(most, kRowsBeforeItIsKnown * members) : RowsWithin(begin, most, seconds, members);
  return end - begin - rows < rows / 4 && end - begin <= most ? end : begin + rows;
}

bool Scheduler::GrowGang(const std::vector<int64_t>& cuts) {
  Gang& gang = *gang_;
  for (size_t i = 0; i + 1 < gang.choice.members.size(); ++i) {
    const int64_t rows = GoesOn(gang.choice.strategy) ? cuts[i + 1] : cuts.back();
    if (!LaneOf(gang.choice.members[i]).pages.Grow(gang.pages[i], rows)) return false;
  }
  return true;
}

void Scheduler::StartRound() {
  if (!gang_ || gang_->running > 0) return;
  for (const int member : gang_->choice.members) {
    const Lane& lane = LaneOf(member);
    if (lane.step) return;
    if (!lane.stepped && !(lane.answering.empty() && lane.reading.empty())) return;
  }
  Gang& gang = *gang_;
  Sequence& sequence = *gang.sequence;
  gang.cuts = forecast_.Cuts(gang.choice, sequence.request.prefill, sequence.done, RoundEnd());
  if (gang.cuts.size() != gang.choice.members.size() + 1 || !GrowGang(gang.cuts)) {
    GoOnAlone();
    return StartLane(sequence.rank);
  }
  const bool last_round = gang.cuts.back() == std::ssize(sequence.tokens);
  const auto stop = std::make_shared<std::atomic<bool>>(false);
  GangPlan together;
  together.members = gang.choice.members;
  together.strategy = gang.choice.strategy;
  together.topology = gang.choice.topology;
  together.cuts = gang.cuts;
  together.held = gang.held;
  for (const HeldPages& held : gang.pages) together.pages.push_back(held.pages);
  together.pages.back() = sequence.held.pages;
  std::vector<StepPlan> plans;
  for (size_t i = 0; i < gang.choice.members.size(); ++i) {
    const int member = gang.choice.members[i];
    const bool last = i + 1 == gang.choice.members.size();
    StepPlan plan = NewStep(member);
    plan.stop = stop;
    if (gang.copies[i]) plan.copies.push_back(*gang.copies[i]);
    ChunkPlan chunk;
    chunk.sequence = sequence.id;
    chunk.begin = gang.cuts[i];
    chunk.tokens.assign(sequence.tokens.begin() + gang.cuts[i], sequence.tokens.begin() + gang.cuts[i + 1]);
    chunk.pages = together.pages[i];
    chunk.long_angles = sequence.long_angles;
    chunk.draw = last && last_round;
    if (chunk.draw) AddSampler(member, sequence, plan);
    plan.chunks.push_back(std::move(chunk));
    together.index = static_cast<int>(i);
    plan.gang = together;
    LaneOf(member).step = plan;
    plans.push_back(std::move(plan));
  }
  gang.running = static_cast<int>(plans.size());
  sequence.in_flight = true;
  if (sequence.stats.cuts.empty()) sequence.stats.cuts = gang.cuts;
  gang.began_s = crew_.Now();
  crew_.StartTogether(std::move(plans));
}

void Scheduler::FinishMember(StepResult result) {
  Gang& gang = *gang_;
  gang.stopped = gang.stopped || result.stopped;
  if (gang.error.empty()) gang.error = std::move(result.error);
  for (Drawn& drawn : result.drawn) gang.drawn = std::move(drawn);
  if (--gang.running == 0) FinishRound();
}

void Scheduler::FinishRound() {
  Gang& gang = *gang_;
  Sequence& sequence = *gang.sequence;
  sequence.in_flight = false;
  for (size_t i = 0; i < gang.choice.members.size(); ++i) {
    Lane& lane = LaneOf(gang.choice.members[i]);
    lane.stepped = false;
    lane.pages.Copied(i + 1 < gang.choice.members.size() ? gang.pages[i] : sequence.held);
    gang.copies[i].reset();
  }
  sequence.copy.reset();
  if (gang.stopped || !gang.error.empty()) {
    crew_.Renew();
    return End(sequence, gang.error.empty() ? FinishReason::kCancelled : FinishReason::kError,
               std::string(gang.error));
  }
  const auto members = static_cast<double>(gang.choice.members.size());
  Learn(forecast_.Work(gang.cuts.front(), gang.cuts.back()) / members, crew_.Now() - gang.began_s);
  for (size_t i = 0; i + 1 < gang.choice.members.size(); ++i) gang.held[i] = gang.cuts[i + 1];
  sequence.done = gang.held.back() = gang.cuts.back();
  if (forecast_.windowed()) sequence.valid_from = sequence.done - 1;
  if (sequence.cancelled) return End(sequence, FinishReason::kCancelled);
  if (sequence.missing() > 0) return sequence.listener->OnProgress(sequence.done, std::ssize(sequence.tokens));
  const std::optional<Drawn> drawn = gang.drawn;
  DropGang();
  FinishReading(sequence);
  if (drawn) Answer(sequence, *drawn);
}

void Scheduler::DropGang() {
  Gang& gang = *gang_;
  CHECK_EQ(gang.running, 0);
  for (size_t i = 0; i + 1 < gang.choice.members.size(); ++i)
    LaneOf(gang.choice.members[i]).pages.Drop(gang.pages[i]);
  gang_.reset();
}

void Scheduler::GoOnAlone() {
  Sequence& sequence = *gang_->sequence;
  DropGang();
  LaneOf(sequence.rank).reading.push_back(&sequence);
}

}  // namespace runahead
