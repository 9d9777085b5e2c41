#include "schedule/serving_simulation.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "kv/kv_pages.h"
#include "schedule/cost_forecast.h"
#include "schedule/simulated_crew.h"

namespace runahead {
namespace {

/// Token `position` of the text `number`; texts of different numbers differ nearly everywhere.
int32_t TokenOf(uint64_t number, int64_t position) {
  uint64_t x = number * 0x9E3779B97F4A7C15 + static_cast<uint64_t>(position);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return static_cast<int32_t>((x ^ (x >> 31)) >> 33);
}

Scheduler::Limits LimitsOf(const ServingLimits& of_each, int ranks) {
  Scheduler::Limits limits;
  limits.pages.assign(static_cast<size_t>(ranks), of_each.pages);
  limits.context = of_each.pages * kPageRows;
  limits.max_pause_s = of_each.max_pause_s;
  return limits;
}

class Play {
 public:
  Play(const WorkShape& shape, const ClusterCosts& costs, const ServingLimits& limits,
       const std::vector<TraceRequest>& trace, ServingPolicy policy, const std::function<void(double)>& on_end)
      : trace_(trace),
        on_end_(on_end),
        crew_(shape, costs),
        forecast_(shape, costs),
        scheduler_(crew_, forecast_, LimitsOf(limits, costs.ranks())) {
    outcome_.policy = policy;
    outcome_.requests.resize(trace.size());
    if (policy == ServingPolicy::kAlone) options_.strategy = Strategy::kSingle;
    if (policy == ServingPolicy::kOverAll) options_.ranks = costs.ranks();
  }

  ServingOutcome Run() {
    if (trace_.empty()) return std::move(outcome_);
    Await(0);
    crew_.Run(scheduler_);
    CHECK(scheduler_.idle());
    outcome_.seconds = crew_.Now() - trace_.front().at_s;
    double busy_s = 0;
    for (int rank = 0; rank < crew_.ranks(); ++rank) busy_s += crew_.busy_s(rank);
    if (outcome_.seconds > 0) outcome_.busy_share = busy_s / crew_.ranks() / outcome_.seconds;
    outcome_.preempted = scheduler_.counts().preempted;
    return std::move(outcome_);
  }

 private:
  class Served final : public Listener {
   public:
    Served(Play& play, size_t index) : play_(play), index_(index) {}
    void OnProgress(const PromptProgress& /*progress*/) override {}
    std::optional<FinishReason> OnToken(const Drawn& /*drawn*/) override { return std::nullopt; }
    void OnEnd(FinishReason /*finish*/, const std::string& /*error*/, const RequestStats& stats) override {
      ServedRequest& served = play_.outcome_.requests[index_];
      served.ttft_ms = stats.ttft_ms;
      served.tpot_ms = stats.tpot_ms;
      served.longest_pause_ms = stats.longest_pause_ms;
      served.cached_tokens = stats.cached_tokens;
      served.new_tokens = stats.new_tokens;
      served.members = static_cast<int>(stats.members.size());
      play_.CountEnd();
    }

   private:
    Play& play_;
    size_t index_;
  };

  void CountEnd() { on_end_(static_cast<double>(++ended_) / static_cast<double>(trace_.size())); }

  /// The request `index` arrives when its time has come; one at a time, so that only its prompt is in memory.
  void Await(size_t index) {
    crew_.At(trace_[index].at_s, [this, index] {
      if (scheduler_.counts().waiting < Scheduler::Limits().most_waiting) {
        scheduler_.Add(RequestOf(index), std::make_unique<Served>(*this, index));
      } else {
        outcome_.requests[index].refused = true;
        CountEnd();
      }
      if (index + 1 < trace_.size()) Await(index + 1);
    });
  }

  [[nodiscard]] Request RequestOf(size_t index) const {
    const TraceRequest& asked = trace_[index];
    Request request;
    request.prompt.resize(static_cast<size_t>(asked.prompt_tokens));
    const auto own = static_cast<uint64_t>(index) << 1;
    const auto shared = (static_cast<uint64_t>(std::max(0, asked.prefix)) << 1) | 1;
    for (int64_t i = 0; i < asked.prompt_tokens; ++i) {
      request.prompt[static_cast<size_t>(i)] = TokenOf(i < asked.prefix_tokens ? shared : own, i);
    }
    request.generation.max_new_tokens = asked.max_tokens;
    request.priority = asked.priority;
    request.prefill = options_;
    return request;
  }

  const std::vector<TraceRequest>& trace_;
  const std::function<void(double)>& on_end_;
  SimulatedCrew crew_;
  CostForecast forecast_;
  Scheduler scheduler_;
  PrefillOptions options_;
  ServingOutcome outcome_;
  size_t ended_ = 0;
};

}  // namespace

std::string_view Name(ServingPolicy policy) {
  switch (policy) {
    case ServingPolicy::kGangAndSpread:
      return "gang and spread";
    case ServingPolicy::kAlone:
      return "every prompt alone";
    case ServingPolicy::kOverAll:
      return "every prompt over all ranks";
  }
  internal::CheckFailed(__FILE__, __LINE__, "unknown policy");
}

ServingOutcome SimulateServing(const WorkShape& shape, const ClusterCosts& costs, const ServingLimits& limits,
                               const std::vector<TraceRequest>& trace, ServingPolicy policy,
                               const std::function<void(double)>& on_end) {
  return Play(shape, costs, limits, trace, policy, on_end).Run();
}

}  // namespace runahead
