// Runs the steps of one rank.
#pragma once

#include <chrono>
#include <unordered_map>
#include <vector>

#include "base/timeline.h"
#include "kv/kv_cache.h"
#include "link/link.h"
#include "worker/rank.h"
#include "worker/sampler.h"
#include "worker/step_plan.h"

namespace runahead {

struct HandedRows;

/// A rank that is told plain values. Owns the samplers of its sequences; borrows all else. Used on the rank's thread.
class RankWorker {
 public:
  /// `tables`: of short and of long sequences, which may grow between steps.
  struct Tables {
    const PositionTables* of_short = nullptr;
    const PositionTables* of_long = nullptr;
  };

  RankWorker(Rank& rank, const Decoder& decoder, const KvCache& cache, Tables tables,
             std::chrono::duration<double> timeout)
      : rank_(rank), decoder_(decoder), cache_(cache), tables_(tables), timeout_(timeout) {}

  /// Runs `plan`. `fabric` joins the members of a gang, by their places in it; null without one. Does not throw: what
  /// fails is in the result.
  [[nodiscard]] StepResult Run(const StepPlan& plan, Fabric* fabric) noexcept;

 private:
  /// How tokens of a sequence are drawn.
  struct Draws {
    Sampler sampler;
    int logprobs = -1;
    bool greedy = false;

    /// Whether the likeliest token is all that is asked of the logits.
    [[nodiscard]] bool TakesLikeliest() const { return greedy && logprobs < 0 && !sampler.Penalizes(); }
  };

  void Prepare(const StepPlan& plan);
  void Copy(const PageCopy& copy);
  [[nodiscard]] Status RunBatch(const StepPlan& plan, Workspace& workspace);
  [[nodiscard]] Status RunGang(const StepPlan& plan, Fabric& fabric, Workspace& workspace, RankTimeline* timeline,
                               HandedRows& sent);
  /// Whether some token of the step is the likeliest one, and nothing else is asked.
  [[nodiscard]] bool DrawsGreedily(const StepPlan& plan) const;
  void DrawAll(const StepPlan& plan, const Workspace& workspace, StepResult& result);
  /// One row of `logits` in host memory, where `fetched` all are; valid until the next call.
  [[nodiscard]] std::span<const float> LogitsOf(const TensorView& logits, int64_t row, bool fetched);
  [[nodiscard]] const PositionTables& TablesOf(const ChunkPlan& chunk) const {
    return chunk.long_angles ? *tables_.of_long : *tables_.of_short;
  }

  Rank& rank_;
  const Decoder& decoder_;
  const KvCache& cache_;
  Tables tables_;
  std::chrono::duration<double> timeout_;
  std::unordered_map<SequenceId, Draws> samplers_;
  std::vector<float> logits_;           // [drawn, vocab], or of one row alone
  std::span<const int32_t> likeliest_;  // [drawn], where the device chose; of the step under way
};

}  // namespace runahead
