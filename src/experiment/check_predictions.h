// Holds what the planner predicts against what prompts take.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/decoder_spec.h"
#include "runahead/engine.h"

namespace runahead {

struct CheckPlan {
  std::vector<int64_t> contexts;
  std::vector<int64_t> ranks;
  std::vector<Topology> topologies;
  std::vector<std::string> partitions;
  int repeats = 12;
};

/// One way to prefill, predicted and measured; medians over the rounds.
struct Checked {
  std::string way;
  int64_t context = 0;
  std::string partition;
  double slowdown = 1;      // pace of the slowest rank around the runs, over that of its costs
  double predicted_ms = 0;  // predicted TTFT at that pace, ms
  double measured_ms = 0;
  double difference = 0;  // prediction minus the time measured in the same round, over that time
  int rounds = 0;         // rounds that count
  int undisturbed = 0;    // rounds during which the hypervisor lent no processor to others
};

/// Times every strategy x partition x ranks in turn, round after round. Each is predicted from the engine's cost
/// profile at the pace of the machine just before and after the run (PaceMeter). A round is taken again for some
/// seconds until nobody disturbs it (LeastDisturbed).
std::vector<Checked> CheckPredictions(const Engine& engine, const DecoderSpec& spec, const CheckPlan& plan,
                                      const std::function<void(double)>& on_round);

}  // namespace runahead
