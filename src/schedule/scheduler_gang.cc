// A long prompt on several ranks, in rounds.
#include <algorithm>

#include "base/check.h"
#include "kv/kv_pages.h"
#include "runahead/error.h"
#include "schedule/scheduler.h"

namespace runahead {
namespace {

/// Whether a strategy can begin behind rows that are there already, and so go in rounds.
bool GoesOn(Strategy strategy) { return strategy == Strategy::kRunahead; }

/// The formats [members][members] of a gang's links.
std::vector<WireFormat> FormatsOf(const GangChoice& choice, int ranks) {
  std::vector<WireFormat> wire;
  if (choice.wire.empty()) return wire;
  for (const int from : choice.members) {
    for (const int to : choice.members) wire.push_back(choice.wire.at(static_cast<size_t>(from * ranks + to)));
  }
  return wire;
}

}  // namespace

Scheduler::Gang* Scheduler::GangOf(const Sequence& sequence) {
  if (sequence.rank < 0) return nullptr;
  Gang* const gang = LaneOf(sequence.rank).gang;
  return gang != nullptr && gang->sequence == &sequence ? gang : nullptr;
}

void Scheduler::StartRounds() {
  for (auto next = gangs_.begin(); next != gangs_.end();) {
    Gang& gang = *next++;  // which may go on alone, or take the pages of a later one's members
    if (ReadyForRound(gang)) StartRound(gang);
  }
}

bool Scheduler::ReadyForRound(const Gang& gang) const {
  if (gang.running > 0) return false;
  return std::all_of(gang.choice.members.begin(), gang.choice.members.end(), [&](int member) {
    const Lane& lane = LaneOf(member);
    return !lane.step && (lane.stepped || (lane.answering.empty() && lane.reading.empty()));
  });
}

double Scheduler::RoundSeconds(const Gang& gang) const {
  constexpr double kPausesWhenAlone = 5;
  constexpr double kShareBesideReading = 0.75;  // the rest is for prompts that the members read between the rounds
  constexpr double kLeast = 0.25;
  const double pause = limits_.max_pause_s;
  const double now = crew_.Now();
  double seconds = kPausesWhenAlone * pause;
  for (const int member : gang.choice.members) {
    const Lane& lane = LaneOf(member);
    if (!lane.answering.empty()) seconds = std::min(seconds, lane.last_token_s + pause - now);
    if (!lane.reading.empty()) seconds = std::min(seconds, kShareBesideReading * pause);
  }
  return std::max(seconds, kLeast * pause);
}

int64_t Scheduler::RoundEnd(const Gang& gang) const {
  constexpr int64_t kFewest = 16;                 // rows of each member
  constexpr int64_t kRowsBeforeItIsKnown = 1024;  // of each member
  const int64_t end = std::ssize(gang.sequence->tokens);
  const int64_t begin = gang.sequence->done;
  if (!GoesOn(gang.choice.strategy)) return end;
  const auto members = std::ssize(gang.choice.members);
  const int64_t most = std::min(end - begin, limits_.most_rows * members);
  if (gang.rate == 0) return begin + std::min(most, kRowsBeforeItIsKnown * members);
  constexpr double kMargin = 0.95;  // later rows take longer for each FLOP
  const double work = kMargin * gang.rate * RoundSeconds(gang) * static_cast<double>(members);
  const int64_t rows = RowsOfWork(begin, kFewest * members, most, work);
  const int64_t rounds = (end - begin + rows - 1) / rows;
  return begin + (end - begin + rounds - 1) / rounds;  // so that the last one is no shorter
}

void Scheduler::LeaveOut(Gang& gang, int member) {
  std::vector<int>& members = gang.choice.members;
  const std::ptrdiff_t at = std::find(members.begin(), members.end(), member) - members.begin();
  CHECK_LT(at, std::ssize(members) - 1);
  Lane& lane = LaneOf(member);
  lane.pages.Drop(gang.pages[static_cast<size_t>(at)]);
  lane.gang = nullptr;
  members.erase(members.begin() + at);
  gang.pages.erase(gang.pages.begin() + at);
  gang.held.erase(gang.held.begin() + at);
  gang.whole.erase(gang.whole.begin() + at);
  gang.copies.erase(gang.copies.begin() + at);
  again_ = admit_ = true;
  if (members.size() < 2) GoOnAlone(gang);
}

void Scheduler::StartRound(Gang& gang) {
  Sequence& sequence = *gang.sequence;
  try {
    gang.cuts = forecast_.Cuts(gang.choice, sequence.request.prefill, sequence.done, RoundEnd(gang));
  } catch (const Error& error) {  // about what this request asks for
    return End(sequence, FinishReason::kError, error.what());
  }
  if (gang.cuts.size() != gang.choice.members.size() + 1) return GoOnAlone(gang);
  const bool last_round = gang.cuts.back() == std::ssize(sequence.tokens);
  gang.stop = std::make_shared<std::atomic<bool>>(false);
  gang.stopped = gang.lost = gang.link_failed = false;
  gang.error.clear();
  gang.drawn.reset();
  const auto together = std::make_shared<GangPlan>();
  together->members = gang.choice.members;
  together->strategy = gang.choice.strategy;
  together->topology = gang.choice.topology;
  together->cuts = gang.cuts;
  together->held = gang.held;
  together->wire = FormatsOf(gang.choice, crew_.ranks());
  for (const HeldPages& held : gang.pages) together->pages.push_back(held.pages);
  together->pages.back() = sequence.held.pages;
  std::vector<StepPlan> plans;
  const double seconds = gang.rate == 0 ? 0
                                        : forecast_.Work(gang.cuts.front(), gang.cuts.back()) / gang.rate /
                                              static_cast<double>(gang.choice.members.size());
  for (size_t i = 0; i < gang.choice.members.size(); ++i) {
    const int member = gang.choice.members[i];
    StepPlan plan = NewStep(member);
    plan.stop = gang.stop;
    if (gang.copies[i]) plan.copies.push_back(*gang.copies[i]);
    ChunkPlan chunk;
    chunk.sequence = sequence.id;
    chunk.begin = gang.cuts[i];
    chunk.tokens.assign(sequence.tokens.begin() + gang.cuts[i], sequence.tokens.begin() + gang.cuts[i + 1]);
    chunk.pages = together->pages[i];
    chunk.long_angles = sequence.long_angles;
    chunk.draw = last_round && i + 1 == gang.choice.members.size();
    if (chunk.draw) AddSampler(member, sequence, plan);
    plan.chunks.push_back(std::move(chunk));
    plan.gang = together;
    plan.record_timeline = sequence.request.prefill.record_timeline;
    plan.member = static_cast<int>(i);
    Record(member, plan, seconds);
    plans.push_back(std::move(plan));
  }
  gang.running = static_cast<int>(plans.size());
  sequence.in_flight = true;
  if (sequence.stats.cuts.empty()) {
    sequence.stats.cuts = gang.cuts;
    sequence.stats.members = gang.choice.members;
    sequence.stats.wire = together->wire;
  }
  if (sequence.stats.new_tokens == 0) ++sequence.stats.rounds;
  gang.began_s = crew_.Now();
  crew_.StartTogether(std::move(plans));
}

void Scheduler::FinishMember(Gang& gang, StepResult result) {
  RecordTimeline(*gang.sequence, result, gang.choice.members);
  RequestStats& stats = gang.sequence->stats;
  stats.bytes_sent += result.bytes_sent;
  stats.wire_bound = std::max(stats.wire_bound, result.wire_bound);
  gang.stopped = gang.stopped || result.stopped;
  gang.lost = gang.lost || result.lost;
  gang.link_failed = gang.link_failed || result.link_failed;
  if (gang.error.empty()) gang.error = std::move(result.error);
  for (Drawn& drawn : result.drawn) gang.drawn = std::move(drawn);
  if (--gang.running == 0) FinishRound(gang);
}

void Scheduler::FinishRound(Gang& gang) {
  Sequence& sequence = *gang.sequence;
  sequence.in_flight = false;
  const size_t members = gang.choice.members.size();
  for (size_t i = 0; i < members; ++i) {
    Lane& lane = LaneOf(gang.choice.members[i]);
    lane.stepped = false;
    lane.pages.Copied(i + 1 < members ? gang.pages[i] : sequence.held);
    gang.copies[i].reset();
  }
  sequence.copy.reset();
  admit_ = true;
  if (gang.stopped || gang.lost || !gang.error.empty()) return FinishBroken(gang);
  const double seconds = crew_.Now() - gang.began_s;
  const double work = forecast_.Work(gang.cuts.front(), gang.cuts.back()) / static_cast<double>(members);
  if (seconds > 0) gang.rate = work / seconds;
  if (rate_ == 0) rate_ = gang.rate;
  CountRows(gang);
  sequence.done = gang.cuts.back();
  if (forecast_.windowed()) sequence.valid_from = sequence.done - 1;
  if (sequence.cancelled) return End(sequence, FinishReason::kCancelled);
  TellProgress(sequence);
  if (sequence.missing() > 0) return;
  const std::optional<Drawn> drawn = gang.drawn;
  DropGang(gang);
  LaneOf(sequence.rank).last_token_s = crew_.Now();
  FinishReading(sequence);
  if (drawn) Answer(sequence, *drawn);
}

void Scheduler::CountRows(Gang& gang) {
  for (size_t i = 0; i + 1 < gang.held.size(); ++i) {
    // In the last layer only the last member attends: of rows before the round the others get none there, and with
    // direct hand-overs none of each other's.
    const bool all_came = i == 0 || gang.choice.topology == Topology::kChain;
    if (all_came && gang.whole[i] == gang.cuts.front()) gang.whole[i] = gang.cuts[i + 1];
    gang.held[i] = gang.cuts[i + 1];
  }
  gang.held.back() = gang.whole.back() = gang.cuts.back();
}

void Scheduler::FinishBroken(Gang& gang) {
  Sequence& sequence = *gang.sequence;
  if (sequence.sampler_on >= 0) LaneOf(sequence.sampler_on).ended.push_back(sequence.id);
  sequence.sampler_on = -1;  // it may have drawn what does not count
  crew_.Renew(gang.choice.members);
  if (sequence.cancelled) return End(sequence, FinishReason::kCancelled);
  if (gang.lost) return Disband(gang);
  if (gang.link_failed && limits_.replan) return ReadAgain(gang);
  const std::string error = gang.error;
  End(sequence, FinishReason::kError, error);
}

void Scheduler::RecordTimeline(Sequence& sequence, const StepResult& result, const std::vector<int>& members) {
  const double from_ms = (result.begin_s - sequence.submitted_s) * 1e3;
  for (TimelineEvent event : result.timeline) {
    event.rank = result.rank;
    if (event.peer >= 0) event.peer = members.at(static_cast<size_t>(event.peer));
    event.begin_ms += from_ms;
    event.end_ms += from_ms;
    sequence.stats.timeline.push_back(event);
  }
}

void Scheduler::DropGang(Gang& gang) {
  CHECK_EQ(gang.running, 0);
  for (size_t i = 0; i < gang.choice.members.size(); ++i) {
    Lane& lane = LaneOf(gang.choice.members[i]);
    lane.gang = nullptr;
    if (i + 1 < gang.choice.members.size()) lane.pages.Drop(gang.pages[i]);
  }
  gangs_.remove_if([&](const Gang& other) { return &other == &gang; });
  admit_ = true;
}

void Scheduler::GoOnAlone(Gang& gang) {
  Sequence& sequence = *gang.sequence;
  DropGang(gang);
  CountAlone(sequence);
  InsertByAge(LaneOf(sequence.rank).reading, sequence);
  again_ = true;
}

}  // namespace runahead
