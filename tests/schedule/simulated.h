// Clusters, requests and answers for tests of the scheduler on a virtual clock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runahead/error.h"
#include "schedule/cost_forecast.h"
#include "schedule/scheduler.h"
#include "schedule/simulated_crew.h"
#include "tests/plan/random_cases.h"

namespace runahead {

/// What a request got.
struct SimulatedOutcome {
  std::optional<RefusedError> refused;
  double predicted_ttft_s = 0;                              // when it was taken
  std::vector<std::pair<double, PromptProgress>> progress;  // and the times at which it was told, s
  int ends = 0;                                             // calls of OnEnd
  FinishReason finish = FinishReason::kLength;
  std::string error;
  RequestStats stats;
  double ended_s = 0;  // time of its end, or of the refusal, s
};

/// Looks at what a scheduler has ranks do: whoever reads a prompt must have all rows before, of the same tokens and
/// in all layers. Passes it on.
class RowsWatch final : public Crew {
 public:
  explicit RowsWatch(SimulatedCrew& crew) : crew_(crew), rows_(static_cast<size_t>(crew.ranks())) {}

  [[nodiscard]] int ranks() const override { return crew_.ranks(); }
  void Start(int rank, StepPlan plan) override;
  void StartTogether(std::vector<StepPlan> plans) override;
  void Renew(std::span<const int> members) override { crew_.Renew(members); }
  [[nodiscard]] double Now() const override { return crew_.Now(); }

  /// All rows of `rank` are gone.
  void Forget(int rank) { rows_.at(static_cast<size_t>(rank)).clear(); }
  /// Rows that somebody began behind without having them.
  [[nodiscard]] int64_t missed() const { return missed_; }

 private:
  /// A sequence up to a row, 0: nothing; and the same for what the last layer has.
  struct Row {
    uint64_t all_but_last = 0;
    uint64_t last = 0;
  };

  Row& At(int rank, const PageList& pages, int64_t row);
  void Copy(int rank, const StepPlan& plan);
  /// Looks at the rows before a chunk, and returns the sequence up to there.
  uint64_t Look(int rank, const ChunkPlan& chunk, bool in_last_layer);

  SimulatedCrew& crew_;
  std::vector<std::unordered_map<int64_t, Row>> rows_;  // [ranks], by page and row
  int64_t missed_ = 0;
};

/// A scheduler over ranks that only take time.
class SimulatedRanks {
 public:
  SimulatedRanks(WorkShape shape, ClusterCosts costs, int32_t pages, Scheduler::Limits limits = {});

  /// Asks for `request` at `at_s`; the outcome's place in outcomes().
  size_t Ask(double at_s, Request request);
  /// Cancels what Ask gave the number `index`.
  void CancelAt(double at_s, size_t index);
  /// `rank` is gone from `at_s` to `back_s`. answered: as SimulatedCrew::Lose has it.
  void LoseAt(double at_s, double back_s, int rank, bool answered = false);
  void Run() { crew.Run(*scheduler); }

  [[nodiscard]] const SimulatedOutcome& Of(size_t index) const { return *outcomes_.at(index); }
  [[nodiscard]] size_t asked() const { return outcomes_.size(); }
  /// Whether no rank's page belongs to a sequence.
  [[nodiscard]] bool AllAtRest() const;
  /// Pages that sequences hold, on all ranks.
  [[nodiscard]] int64_t PagesTaken() const;

  WorkShape shape;
  ClusterCosts costs;
  SimulatedCrew crew;
  RowsWatch rows;
  CostForecast forecast;
  std::unique_ptr<Scheduler> scheduler;
  std::function<void(size_t index, int64_t tokens)> on_token;  // told the tokens of the answer so far

 private:
  std::vector<std::shared_ptr<SimulatedOutcome>> outcomes_;
  std::vector<SequenceId> ids_;
};

/// GPUs of one host.
ClusterCosts Gpus(const WorkShape& shape, int ranks);
/// A prompt of `tokens` ids that no other `number` shares, and an answer of `answer` tokens.
Request Prompt(int64_t tokens, int answer, uint64_t number);

}  // namespace runahead
