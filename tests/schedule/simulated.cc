#include "tests/schedule/simulated.h"

#include <utility>

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

Scheduler::Limits WithPages(Scheduler::Limits limits, int ranks, int32_t pages) {
  if (limits.context == 0) limits.context = 1 << 20;
  if (limits.pages.empty()) limits.pages.assign(static_cast<size_t>(ranks), pages);
  return limits;
}

}  // namespace

SimulatedRanks::SimulatedRanks(WorkShape a_shape, ClusterCosts a_costs, int32_t pages, Scheduler::Limits limits)
    : shape(std::move(a_shape)), costs(std::move(a_costs)), crew(shape, costs), forecast(shape, costs) {
  scheduler = std::make_unique<Scheduler>(crew, forecast, WithPages(std::move(limits), costs.ranks(), pages));
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

void SimulatedRanks::LoseAt(double at_s, double back_s, int rank) {
  crew.At(at_s, [this, back_s, rank] {
    const int32_t pages = scheduler->pages(rank).pages();
    scheduler->Lose(rank);
    crew.Lose(rank);
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
