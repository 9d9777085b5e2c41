// Ranks that are lost and come back: those that are left compute again what these had.
#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "kv/kv_pages.h"
#include "schedule/scheduler.h"

namespace runahead {

int64_t Scheduler::Room() const {
  int32_t most = 0;
  for (const Lane& lane : lanes_) most = std::max(most, lane.gone ? 0 : lane.pages.pages());
  return most * kPageRows;
}

GangChoice Scheduler::Chosen(int64_t tokens, const PrefillOptions& options) {
  GangChoice choice = forecast_.Choose(tokens, options);
  const auto planned = static_cast<double>(choice.members.size());
  if (std::erase_if(choice.members, [this](int member) { return LaneOf(member).gone; }) == 0) return choice;
  if (choice.members.empty()) {
    const auto there = std::find_if(lanes_.begin(), lanes_.end(), [](const Lane& lane) { return !lane.gone; });
    CHECK(there != lanes_.end());
    choice.members.push_back(static_cast<int>(there - lanes_.begin()));
  }
  choice.predicted_s *= planned / static_cast<double>(choice.members.size());
  if (choice.members.size() == 1) choice.strategy = Strategy::kSingle;
  return choice;
}

void Scheduler::Lose(int rank) {
  Lane& lane = LaneOf(rank);
  if (lane.gone) return;
  lane.gone = true;
  lane.ended.clear();
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->sampler_on == rank) sequence->sampler_on = -1;
  }
  std::vector<Sequence*> left = lane.answering;
  left.insert(left.end(), lane.reading.begin(), lane.reading.end());
  for (Sequence* sequence : left) {
    if (!sequence->in_flight) Recompute(*sequence);  // the others once their step is finished
  }
  if (Gang* const gang = lane.gang; gang != nullptr) {
    if (gang->running > 0) {
      gang->lost = true;
      *gang->stop = true;
    } else if (gang->sequence->rank == rank) {
      Disband(*gang);
    } else {
      LeaveOut(*gang, rank);
    }
  }
  PlanAnew();
}

void Scheduler::Return(int rank, int32_t pages) {
  Lane& lane = LaneOf(rank);
  CHECK(lane.gone && !lane.step);
  lane.pages.Reset(pages);
  lane.gone = false;
  lane.rate = lane.answer_s = 0;
  PlanAnew();
}

void Scheduler::Recompute(Sequence& sequence) {
  sequence.copy.reset();
  sequence.done = 0;
  LaneOf(sequence.rank).pages.Drop(sequence.held);
  BackToQueue(sequence);
  EndWithoutRoom(sequence);
}

void Scheduler::EndWithoutRoom(Sequence& sequence) {
  const int64_t room = Room();
  sequence.most_rows = std::min(limits_.context, room);
  if (std::ssize(sequence.tokens) <= room) return;
  End(sequence, FinishReason::kError,
      fmt::format("request: its {} tokens are more than the KV-cache of any rank that is left has room for, {}",
                  sequence.tokens.size(), room));
}

void Scheduler::FinishLost(const Running& step) {
  for (const Running::Part& part : step.parts) {
    Sequence& sequence = *sequences_.at(part.sequence);
    sequence.in_flight = false;
    if (sequence.cancelled) {
      End(sequence, FinishReason::kCancelled);
    } else {
      Recompute(sequence);
    }
  }
}

void Scheduler::Disband(Gang& gang) {
  Sequence& sequence = *gang.sequence;
  // Behind a window a member lacks rows that others begin with.
  for (size_t i = 0; i + 1 < gang.choice.members.size() && !forecast_.windowed(); ++i) {
    Lane& lane = LaneOf(gang.choice.members[i]);
    const int64_t rows = gang.whole[i] - (gang.copies[i] ? gang.copies[i]->rows : 0);
    if (lane.gone) continue;
    lane.pages.End(gang.pages[i], std::span(sequence.tokens).first(static_cast<size_t>(rows)), 0,
                   sequence.long_angles);
  }
  DropGang(gang);
  if (LaneOf(sequence.rank).gone) return Recompute(sequence);
  BackToQueue(sequence);
}

void Scheduler::ReadAgain(Gang& gang) {
  constexpr int kMostBroken = 3;  // a prompt whose links fail again and again is read by one rank
  Sequence& sequence = *gang.sequence;
  if (++sequence.broken_rounds >= kMostBroken) {
    sequence.choice.members = {sequence.rank};
    sequence.choice.strategy = Strategy::kSingle;
  }
  Disband(gang);
}

void Scheduler::PlanAnew() {
  std::vector<int> there;
  for (int rank = 0; rank < crew_.ranks(); ++rank) {
    if (!LaneOf(rank).gone) there.push_back(rank);
  }
  if (!there.empty()) forecast_.PlanOver(there);
  std::vector<Sequence*> all;
  for (const auto& [id, sequence] : sequences_) all.push_back(sequence.get());
  std::sort(all.begin(), all.end(), [](const Sequence* a, const Sequence* b) { return a->id < b->id; });
  for (Sequence* sequence : all) {
    sequence->choice = Chosen(sequence->prompt_tokens, sequence->request.prefill);
    if (sequence->rank >= 0 || sequence->loading) continue;
    StopWaiting(*sequence);
    Wait(*sequence);
    EndWithoutRoom(*sequence);
  }
  admit_ = true;
}

}  // namespace runahead
