// The steps of single ranks: answers that go on, and prompts that one rank reads.
#include <algorithm>

#include "base/check.h"
#include "schedule/scheduler.h"

namespace runahead {

StepPlan Scheduler::NewStep(int rank) {
  StepPlan plan;
  plan.step = ++last_step_;
  plan.ended = std::move(LaneOf(rank).ended);
  LaneOf(rank).ended.clear();
  plan.stop = std::make_shared<std::atomic<bool>>(false);
  return plan;
}

void Scheduler::StartLane(int rank) {
  Lane& lane = LaneOf(rank);
  if (lane.answering.empty() && lane.reading.empty()) return;
  if (InGang(rank) && gang_->running == 0 && lane.stepped) return;  // the gang's next round comes first
  StepPlan plan = NewStep(rank);
  AddAnswers(rank, plan);
  AddReading(rank, plan);
  if (plan.chunks.empty()) {  // all had to make room
    lane.ended = std::move(plan.ended);
    return;
  }
  lane.step = plan;
  crew_.Start(rank, std::move(plan));
}

void Scheduler::AddAnswers(int rank, StepPlan& plan) {
  const std::vector<Sequence*> answering = LaneOf(rank).answering;  // which may lose some
  for (Sequence* sequence : answering) {
    if (sequence->rank != rank || !sequence->answering) continue;
    if (forecast_.IsLong(std::ssize(sequence->tokens)) != sequence->long_angles) {
      LaneOf(rank).pages.Drop(sequence->held);  // no key of its cache stays valid
      sequence->done = 0;
      BackToQueue(*sequence);
      continue;
    }
    if (MakeRoom(rank, *sequence)) AddChunk(rank, *sequence, sequence->missing(), plan);
  }
}

void Scheduler::AddReading(int rank, StepPlan& plan) {
  constexpr double kPausesWhenAlone = 5;  // nobody waits for an answer's next token: larger steps are faster
  constexpr int64_t kRowsBeforeItIsKnown = 512;
  Lane& lane = LaneOf(rank);
  if (lane.reading.empty() || (InGang(rank) && gang_->running > 0)) return;
  const bool others = !lane.answering.empty() || InGang(rank);
  const double seconds = others ? std::max(limits_.max_pause_s - lane.answer_s, limits_.max_pause_s / 4)
                                : kPausesWhenAlone * limits_.max_pause_s;
  const Sequence& first = *lane.reading.front();
  int64_t rows = rate_ == 0 ? kRowsBeforeItIsKnown : RowsWithin(first.done, limits_.most_rows, seconds, 1);
  rows = std::min(rows, limits_.most_rows);
  for (Sequence* sequence : lane.reading) {
    const int64_t own = std::min(rows, sequence->missing());
    if (own == 0) return;
    AddChunk(rank, *sequence, own, plan);
    rows -= own;
  }
}

int64_t Scheduler::RowsWithin(int64_t begin, int64_t most, double seconds, int ranks) const {
  constexpr int64_t kFewest = 16;
  const double work = rate_ * seconds * ranks;
  int64_t fits = std::min(kFewest * ranks, most);
  int64_t beyond = most + 1;
  while (fits + 1 < beyond) {
    const int64_t middle = fits + (beyond - fits) / 2;
    (forecast_.Work(begin, begin + middle) <= work ? fits : beyond) = middle;
  }
  return fits;
}

void Scheduler::AddChunk(int rank, Sequence& sequence, int64_t rows, StepPlan& plan) {
  ChunkPlan chunk;
  chunk.sequence = sequence.id;
  chunk.begin = sequence.done;
  const auto from = sequence.tokens.begin() + sequence.done;
  chunk.tokens.assign(from, from + rows);
  chunk.pages = sequence.held.pages;
  chunk.long_angles = sequence.long_angles;
  chunk.draw = rows == sequence.missing();
  if (chunk.draw) AddSampler(rank, sequence, plan);
  if (sequence.copy) plan.copies.push_back(*sequence.copy);
  sequence.in_flight = true;
  plan.chunks.push_back(std::move(chunk));
}

void Scheduler::AddSampler(int rank, Sequence& sequence, StepPlan& plan) {
  if (sequence.sampler_on == rank) return;
  if (sequence.sampler_on >= 0) LaneOf(sequence.sampler_on).ended.push_back(sequence.id);
  sequence.sampler_on = rank;
  const Request& request = sequence.request;
  SamplerPlan sampler;
  sampler.sequence = sequence.id;
  sampler.options = request.generation.sampling;
  sampler.logit_bias = request.logit_bias;
  sampler.logprobs = request.logprobs;
  const auto answer = sequence.tokens.begin() + sequence.prompt_tokens;
  if (request.generation.sampling.repetition_penalty != 1) sampler.prompt.assign(sequence.tokens.begin(), answer);
  sampler.drawn.assign(answer, sequence.tokens.end());
  plan.samplers.push_back(std::move(sampler));
}

bool Scheduler::MakeRoom(int rank, Sequence& sequence) {
  Lane& lane = LaneOf(rank);
  while (!lane.pages.Grow(sequence.held, std::ssize(sequence.tokens))) {
    Sequence* youngest = &sequence;
    const auto age = [](const Sequence& s) { return std::pair(-s.request.priority, s.id); };
    for (const std::vector<Sequence*>* list : {&lane.answering, &lane.reading}) {
      for (Sequence* other : *list) {
        if (!other->in_flight && age(*other) > age(*youngest)) youngest = other;
      }
    }
    const bool gang_has_pages = InGang(rank) && gang_->running == 0 && gang_->sequence->rank != rank;
    if (youngest == &sequence && gang_has_pages) {
      GoOnAlone();
      continue;
    }
    BackToQueue(*youngest);
    if (youngest == &sequence) return false;
  }
  return true;
}

void Scheduler::Finish(StepResult result) {
  Lane& lane = LaneOf(result.rank);
  CHECK(lane.step.has_value());
  CHECK_EQ(lane.step->step, result.step);
  const StepPlan plan = *std::move(lane.step);
  lane.step.reset();
  if (plan.gang) return FinishMember(std::move(result));
  lane.stepped = true;
  double work = 0;  // of prompts
  std::vector<Sequence*> of_step;
  for (const ChunkPlan& chunk : plan.chunks) {
    Sequence& sequence = *sequences_.at(chunk.sequence);
    of_step.push_back(&sequence);
    sequence.in_flight = false;
    if (!result.error.empty()) continue;
    if (sequence.copy) lane.pages.Copied(sequence.held);
    sequence.copy.reset();
    if (result.stopped) continue;
    if (!sequence.answering) work += forecast_.Work(chunk.begin, chunk.end());
    sequence.done = chunk.end();
    if (!sequence.answering) FinishReading(sequence);
  }
  if (result.error.empty() && !result.stopped) {
    if (work > 0) Learn(work, result.seconds);
    if (work == 0) lane.answer_s = result.seconds;
  }
  std::vector<SequenceId> ids;  // an answer's end takes its sequence along
  for (const Sequence* sequence : of_step) ids.push_back(sequence->id);
  for (const Drawn& drawn : result.drawn) {
    Sequence& sequence = *sequences_.at(drawn.sequence);
    if (!sequence.cancelled) Answer(sequence, drawn);
  }
  for (const SequenceId id : ids) {
    const auto found = sequences_.find(id);
    if (found == sequences_.end()) continue;
    if (!result.error.empty()) {
      End(*found->second, FinishReason::kError, result.error);
    } else if (found->second->cancelled) {
      End(*found->second, FinishReason::kCancelled);
    }
  }
}

void Scheduler::FinishReading(Sequence& sequence) {
  sequence.listener->OnProgress(sequence.done, std::ssize(sequence.tokens));
  if (sequence.missing() > 0) return;
  Lane& lane = LaneOf(sequence.rank);
  std::erase(lane.reading, &sequence);
  lane.answering.push_back(&sequence);
  sequence.answering = true;
  lane.pages.Share(sequence.held, sequence.tokens, sequence.valid_from, sequence.long_angles);
}

void Scheduler::Learn(double work, double seconds) {
  constexpr double kNew = 0.3;  // weight of the newest
  if (seconds <= 0) return;
  const double rate = work / seconds;
  rate_ = rate_ == 0 ? rate : (1 - kNew) * rate_ + kNew * rate;
}

}  // namespace runahead
