#include "tests/schedule/simulated.h"

#include <utility>

#include "kv/kv_pages.h"

namespace runahead {
namespace {

class Recorder final : public Listener {
 public:
  Recorder(std::shared_ptr<SimulatedOutcome> outcome, const SimulatedRanks& ranks, size_t index)
      : outcome_(std::move(outcome)), ranks_(ranks), index_(index) {}
  void OnProgress(const PromptProgress& progress) override {
    outcome_->progress.emplace_back(ranks_.crew.Now(), progress);
  }
  std::optional<FinishReason> OnToken(const Drawn& /*drawn*/) override {
    ++tokens_;
    if (ranks_.on_token) ranks_.on_token(index_, tokens_);
    return std::nullopt;
  }
  void OnEnd(FinishReason finish, const std::string& error, const RequestStats& stats) override {
    ++outcome_->ends;
    outcome_->finish = finish;
    outcome_->error = error;
    outcome_->stats = stats;
    outcome_->ended_s = ranks_.crew.Now();
  }

 private:
  std::shared_ptr<SimulatedOutcome> outcome_;
  const SimulatedRanks& ranks_;
  size_t index_;
  int64_t tokens_ = 0;
};

constexpr uint64_t kNothing = 1;  // the sequence without a token

/// The sequence with one token more, never 0.
uint64_t Behind(uint64_t sequence, int32_t token) {
  const uint64_t mixed = (sequence ^ static_cast<uint32_t>(token)) * 0x9E3779B97F4A7C15U;
  return (mixed ^ (mixed >> 29)) | 1;
}

Scheduler::Limits WithPages(Scheduler::Limits limits, int ranks, int32_t pages) {
  if (limits.context == 0) limits.context = 1 << 20;
  if (limits.pages.empty()) limits.pages.assign(static_cast<size_t>(ranks), pages);
  return limits;
}

}  // namespace

RowsWatch::Row& RowsWatch::At(int rank, const PageList& pages, int64_t row) {
  const int64_t page = pages.at(static_cast<size_t>(row / kPageRows));
  return rows_[static_cast<size_t>(rank)][page * kPageRows + row % kPageRows];
}

void RowsWatch::Copy(int rank, const StepPlan& plan) {
  for (const PageCopy& copy : plan.copies) {
    for (int64_t row = 0; row < copy.rows; ++row) At(rank, {copy.to}, row) = At(rank, {copy.from}, row);
  }
}

uint64_t RowsWatch::Look(int rank, const ChunkPlan& chunk, bool in_last_layer) {
  if (chunk.begin == 0) return kNothing;
  const Row before = At(rank, chunk.pages, chunk.begin - 1);
  if (before.all_but_last == 0 || chunk.rows() == 1)
    return before.all_but_last;  // answers begin behind their own rows
  for (int64_t row = 0; in_last_layer && row < chunk.begin; ++row) {
    const Row here = At(rank, chunk.pages, row);
    missed_ += here.last != here.all_but_last ? 1 : 0;
  }
  return before.all_but_last;
}

void RowsWatch::Start(int rank, StepPlan plan) {
  Copy(rank, plan);
  for (const ChunkPlan& chunk : plan.chunks) {
    uint64_t sequence = Look(rank, chunk, /*in_last_layer=*/true);
    for (int64_t i = 0; i < chunk.rows(); ++i) {
      sequence = Behind(sequence, chunk.tokens[static_cast<size_t>(i)]);
      At(rank, chunk.pages, chunk.begin + i) = {sequence, sequence};
    }
  }
  crew_.Start(rank, std::move(plan));
}

void RowsWatch::StartTogether(std::vector<StepPlan> plans) {
  const GangPlan& gang = *plans.front().gang;
  const size_t last = gang.members.size() - 1;
  for (size_t i = 0; i <= last; ++i) Copy(gang.members[i], plans[i]);
  // Whole on the last member, which gets all rows of the others.
  ChunkPlan round = plans.front().chunks.front();
  round.pages = gang.pages[last];
  uint64_t sequence = Look(gang.members[last], round, /*in_last_layer=*/true);
  int64_t row = gang.cuts.front();
  for (const StepPlan& plan : plans) {
    for (const int32_t token : plan.chunks.front().tokens) {
      sequence = Behind(sequence, token);
      At(gang.members[last], round.pages, row++) = {sequence, sequence};
    }
  }
  for (size_t i = 0; i < last; ++i) {
    for (int64_t got = gang.held[i]; got < gang.cuts[i + 1]; ++got) {
      const uint64_t whole = At(gang.members[last], round.pages, got).last;
      const int64_t from = gang.topology == Topology::kChain ? gang.cuts.front() : gang.cuts[i];
      At(gang.members[i], gang.pages[i], got) = {whole, got < from ? 0 : whole};
    }
  }
  crew_.StartTogether(std::move(plans));
}

SimulatedRanks::SimulatedRanks(WorkShape a_shape, ClusterCosts a_costs, int32_t pages, Scheduler::Limits limits)
    : shape(std::move(a_shape)), costs(std::move(a_costs)), crew(shape, costs), rows(crew), forecast(shape, costs) {
  scheduler = std::make_unique<Scheduler>(rows, forecast, WithPages(std::move(limits), costs.ranks(), pages));
}

size_t SimulatedRanks::Ask(double at_s, Request request) {
  const size_t index = outcomes_.size();
  outcomes_.push_back(std::make_shared<SimulatedOutcome>());
  ids_.push_back(0);
  crew.At(at_s, [this, index, request = std::move(request)]() mutable {
    try {
      const Admission admission =
          scheduler->Add(std::move(request), std::make_unique<Recorder>(outcomes_[index], *this, index));
      ids_[index] = admission.id;
      outcomes_[index]->predicted_ttft_s = admission.predicted_ttft_s;
    } catch (const RefusedError& error) {
      outcomes_[index]->refused = error;
      outcomes_[index]->ended_s = crew.Now();
    }
  });
  return index;
}

void SimulatedRanks::CancelAt(double at_s, size_t index) {
  crew.At(at_s, [this, index] { scheduler->Cancel(ids_[index]); });
}

void SimulatedRanks::LoseAt(double at_s, double back_s, int rank, bool answered) {
  crew.At(at_s, [this, back_s, rank, answered] {
    const int32_t pages = scheduler->pages(rank).pages();
    scheduler->Lose(rank);
    crew.Lose(rank, answered);
    rows.Forget(rank);
    crew.At(back_s, [this, rank, pages] { scheduler->Return(rank, pages); });
  });
}

bool SimulatedRanks::AllAtRest() const {
  for (int rank = 0; rank < costs.ranks(); ++rank) {
    if (!scheduler->pages(rank).AllAtRest()) return false;
  }
  return true;
}

int64_t SimulatedRanks::PagesTaken() const {
  int64_t taken = 0;
  for (int rank = 0; rank < costs.ranks(); ++rank) {
    taken += scheduler->pages(rank).pages() - scheduler->pages(rank).available();
  }
  return taken;
}

ClusterCosts Gpus(const WorkShape& shape, int ranks) {
  ClusterCosts costs;
  costs.devices.assign(static_cast<size_t>(ranks), CostFromRates(shape, {"gpu", 7.4e14, 6.4e14, 4.8e12, 3e-5}));
  costs.links = LinkTable(ranks, {1e-5, 3.7e11, 2e-5, Mover::kEngine}, Sharing::kPorts);
  return costs;
}

Request Prompt(int64_t tokens, int answer, uint64_t number) {
  Request request;
  uint64_t state = number * 0x9E3779B97F4A7C15 + 1;
  for (int64_t i = 0; i < tokens; ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    request.prompt.push_back(static_cast<int32_t>(state >> 34));
  }
  request.generation.max_new_tokens = answer;
  return request;
}

}  // namespace runahead
