// Plays a trace of requests on a described cluster.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "plan/cluster_costs.h"
#include "plan/work_shape.h"

namespace runahead {

/// A request of a trace: what it needs is how long things are.
struct TraceRequest {
  double at_s = 0;            // time of its arrival, s
  int64_t prompt_tokens = 0;  // all of the prompt
  int max_tokens = 0;         // tokens of the answer
  int prefix = -1;            // number of the text that it begins with; -1: one of its own
  int64_t prefix_tokens = 0;  // tokens of that text, at most prompt_tokens
  int priority = 0;
};

/// How prompts are spread: as the scheduler likes; each on one rank; each over all ranks.
enum class ServingPolicy : unsigned char { kGangAndSpread, kAlone, kOverAll };

inline constexpr std::array kServingPolicies = {ServingPolicy::kGangAndSpread, ServingPolicy::kAlone,
                                                ServingPolicy::kOverAll};

/// "gang and spread", "every prompt alone", "every prompt over all ranks".
std::string_view Name(ServingPolicy policy);

/// What each rank has for sequences.
struct ServingLimits {
  int32_t pages = 0;         // pages of each rank's KV-cache
  double max_pause_s = 0.2;  // longest time that running answers wait for somebody's prompt phase, s
};

/// What one request got.
struct ServedRequest {
  bool refused = false;  // too many waited
  double ttft_ms = 0;
  double tpot_ms = 0;           // mean time per output token after the first, ms; 0: there is none
  double longest_pause_ms = 0;  // longest time between two of its tokens, ms
  int64_t cached_tokens = 0;    // tokens of the prompt that were in a cache
  int64_t new_tokens = 0;
  int members = 0;  // ranks of its prompt phase
};

struct ServingOutcome {
  ServingPolicy policy = ServingPolicy::kGangAndSpread;
  std::vector<ServedRequest> requests;  // in the order of the trace
  double seconds = 0;                   // time from the first arrival to the last end, s
  double busy_share = 0;                // share of it during which a rank works, mean of the ranks
  int64_t preempted = 0;                // times that a sequence made room for an older one
};

/// Plays `trace`, which is ordered by arrival. `on_end` is told the share of requests that have ended. Throws
/// ConfigError for a prompt that no rank has room for.
ServingOutcome SimulateServing(const WorkShape& shape, const ClusterCosts& costs, const ServingLimits& limits,
                               const std::vector<TraceRequest>& trace, ServingPolicy policy,
                               const std::function<void(double)>& on_end);

}  // namespace runahead
