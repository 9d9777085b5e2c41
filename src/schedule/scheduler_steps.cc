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

void Scheduler::Record(int rank, const StepPlan& plan, double seconds) {
  Lane& lane = LaneOf(rank);
  Running step;
  step.step = plan.step;
  for (const ChunkPlan& chunk : plan.chunks) step.parts.push_back({chunk.sequence, chunk.begin, chunk.end()});
  step.together = plan.gang != nullptr;
  step.reads = std::any_of(plan.chunks.begin(), plan.chunks.end(),
                           [&](const ChunkPlan& chunk) { return !sequences_.at(chunk.sequence)->answering; });
  step.stop = plan.stop;
  step.expected_end_s = crew_.Now() + seconds;
  if (lane.gang != nullptr) lane.gang->busy_until_s = std::max(lane.gang->busy_until_s, step.expected_end_s);
  lane.step = std::move(step);
  ++at_work_;
}

bool Scheduler::HoldsForGang(int rank) const {
  const Lane& lane = LaneOf(rank);
  if (lane.gang == nullptr || lane.gang->running > 0 || !lane.stepped) return false;
  return lane.answering.empty() || crew_.Now() + lane.answer_s >= lane.gang->busy_until_s;
}

void Scheduler::StartLane(int rank) {
  Lane& lane = LaneOf(rank);
  if ((lane.answering.empty() && lane.reading.empty()) || HoldsForGang(rank)) return;
  StepPlan plan = NewStep(rank);
  AddAnswers(rank, plan);
  // Beside a round, or while the other members are not ready for one, answers alone go on.
  if (lane.gang == nullptr || (lane.gang->running == 0 && !lane.stepped)) AddReading(rank, plan);
  if (plan.chunks.empty()) {  // all had to make room
    lane.ended = std::move(plan.ended);
    return;
  }
  double work = 0;
  for (const ChunkPlan& chunk : plan.chunks) {
    if (!sequences_.at(chunk.sequence)->answering) work += forecast_.Work(chunk.begin, chunk.end());
  }
  const double rate = RateOf(lane);
  Record(rank, plan, lane.answer_s + (rate > 0 ? work / rate : 0));
  crew_.Start(rank, std::move(plan));
}

void Scheduler::AddAnswers(int rank, StepPlan& plan) {
  const std::vector<Sequence*> answering = LaneOf(rank).answering;  // which may lose some
  for (Sequence* sequence : answering) {
    if (sequence->rank != rank || !sequence->answering) continue;
    if (forecast_.IsLong(std::ssize(sequence->tokens)) != sequence->long_angles) {
      LaneOf(rank).pages.Drop(sequence->held);  // no key of its cache stays valid
      sequence->done = 0;
      ++preempted_;
      BackToQueue(*sequence);
      again_ = true;
      continue;
    }
    if (MakeRoom(rank, *sequence)) AddChunk(rank, *sequence, sequence->missing(), plan);
  }
}

double Scheduler::ReadingSeconds(int rank) const {
  constexpr double kPausesWhenAlone = 5;  // nobody waits for an answer's next token: larger steps are faster
  constexpr double kLeast = 0.25;
  constexpr double kLeastInAGang = 0.125;
  constexpr double kForAGang = 0.5;
  const Lane& lane = LaneOf(rank);
  const double pause = limits_.max_pause_s;
  if (!lane.answering.empty()) {
    const double left = lane.last_token_s + pause - crew_.Now() - lane.answer_s;
    return std::max(left, pause * (lane.gang != nullptr ? kLeastInAGang : kLeast));
  }
  if (lane.gang != nullptr) return kForAGang * pause;
  return lane.reading.size() == 1 ? kPausesWhenAlone * pause : pause;
}

void Scheduler::AddReading(int rank, StepPlan& plan) {
  constexpr int64_t kRowsBeforeItIsKnown = 512;
  constexpr int64_t kFewest = 16;
  const Lane& lane = LaneOf(rank);
  if (lane.reading.empty()) return;
  Sequence& first = *lane.reading.front();
  const double rate = RateOf(lane);
  int64_t rows = std::min(kRowsBeforeItIsKnown, limits_.most_rows);
  if (rate > 0) rows = RowsOfWork(first.done, kFewest, limits_.most_rows, rate * ReadingSeconds(rank));
  int64_t behind = 0;  // rows of the later ones, which get up to half of the step
  for (const Sequence* sequence : lane.reading) behind += sequence->missing();
  behind -= first.missing();
  const int64_t own = std::min(first.missing(), std::max((rows + 1) / 2, rows - behind));
  AddChunk(rank, first, own, plan);
  rows -= own;
  for (size_t i = 1; i < lane.reading.size() && rows > 0; ++i) {
    Sequence& sequence = *lane.reading[i];
    const int64_t part = std::min(rows, sequence.missing());
    AddChunk(rank, sequence, part, plan);
    rows -= part;
  }
}

int64_t Scheduler::RowsOfWork(int64_t begin, int64_t fewest, int64_t most, double work) const {
  int64_t fits = std::min(fewest, most);
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
    const auto look_at = [&](Sequence* other) {
      if (!other->in_flight && other->order() > youngest->order()) youngest = other;
    };
    std::for_each(lane.answering.begin(), lane.answering.end(), look_at);
    std::for_each(lane.reading.begin(), lane.reading.end(), look_at);
    if (lane.gang != nullptr) look_at(lane.gang->sequence);
    SendBackYoungest(rank, *youngest);
    if (youngest == &sequence) return false;
  }
  return true;
}

void Scheduler::SendBackYoungest(int rank, Sequence& youngest) {
  Gang* const gang = GangOf(youngest);
  if (gang != nullptr && youngest.rank != rank) return LeaveOut(*gang, rank);
  if (gang != nullptr) DropGang(*gang);
  ++preempted_;
  BackToQueue(youngest);
}

void Scheduler::Finish(StepResult result) {
  Lane& lane = LaneOf(result.rank);
  CHECK(lane.step.has_value());
  CHECK_EQ(lane.step->step, result.step);
  const Running step = *std::move(lane.step);
  lane.step.reset();
  --at_work_;
  lane.busy_s += result.seconds;
  lane.wait_s += result.wait_s;
  lane.bytes_sent += result.bytes_sent;
  if (step.together) return FinishMember(*lane.gang, std::move(result));
  if (result.lost || lane.gone) return FinishLost(step);  // a result that comes with the loss has no rank to go on at
  lane.stepped = true;
  FinishParts(lane, step, result);
  for (const Drawn& drawn : result.drawn) {
    Sequence& sequence = *sequences_.at(drawn.sequence);
    if (!sequence.cancelled) Answer(sequence, drawn);
  }
  for (const Running::Part& part : step.parts) {
    const auto found = sequences_.find(part.sequence);
    if (found == sequences_.end()) continue;  // its answer has ended
    if (!result.error.empty()) {
      End(*found->second, FinishReason::kError, result.error);
    } else if (found->second->cancelled) {
      End(*found->second, FinishReason::kCancelled);
    }
  }
}

void Scheduler::FinishParts(Lane& lane, const Running& step, const StepResult& result) {
  double work = 0;  // of prompts
  bool answers = false;
  for (const Running::Part& part : step.parts) {
    Sequence& sequence = *sequences_.at(part.sequence);
    sequence.in_flight = false;
    if (!result.error.empty()) continue;
    if (sequence.copy) lane.pages.Copied(sequence.held);
    sequence.copy.reset();
    if (result.stopped) continue;
    answers = answers || sequence.answering;
    if (!sequence.answering) work += forecast_.Work(part.begin, part.end);
    sequence.done = part.end;
    if (!sequence.answering && sequence.request.prefill.record_timeline) {
      const double begin_ms = (result.begin_s - sequence.submitted_s) * 1e3;
      sequence.stats.timeline.push_back({result.rank, TimelineEvent::kAllLayers, Activity::kCompute, begin_ms,
                                         begin_ms + result.seconds * 1e3, 0, -1});
    }
    if (sequence.answering) continue;
    TellProgress(sequence);
    FinishReading(sequence);
  }
  if (!result.error.empty() || result.stopped) return;
  admit_ = admit_ || work > 0;
  if (!result.drawn.empty()) lane.last_token_s = crew_.Now();
  if (work == 0) {
    lane.answer_s = result.seconds;
  } else {
    Learn(lane, work, result.seconds - (answers ? lane.answer_s : 0));
  }
}

void Scheduler::FinishReading(Sequence& sequence) {
  if (sequence.missing() > 0) return;
  Lane& lane = LaneOf(sequence.rank);
  std::erase(lane.reading, &sequence);
  InsertByAge(lane.answering, sequence);
  sequence.answering = true;
  lane.pages.Share(sequence.held, sequence.tokens, sequence.valid_from, sequence.long_angles);
  Save(sequence, sequence.tokens);
  BeginOthers(sequence);
}

void Scheduler::Learn(Lane& lane, double work, double seconds) {
  constexpr double kNew = 0.3;  // weight of the newest
  constexpr double kTells = 1;  // times of a step of answers: a shorter step read the weights, whatever its rows
  if (seconds <= 0 || (rate_ > 0 && seconds < kTells * lane.answer_s)) return;
  const auto mix = [&](double& rate) {
    rate = rate == 0 ? work / seconds : (1 - kNew) * rate + kNew * work / seconds;
  };
  mix(lane.rate);
  mix(rate_);
}

}  // namespace runahead
