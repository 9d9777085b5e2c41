// The parts of `runahead tune`: searching partitions and checking predictions, on the ranks themselves.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/decoder_spec.h"
#include "plan/partition_table.h"
#include "runahead/engine.h"

namespace runahead::cli {

struct SearchPlan {
  std::vector<int64_t> contexts;
  std::vector<int64_t> ranks;
  std::vector<Topology> topologies;
  int repeats = 3;            // timed runs of a candidate; the median counts
  int most_evaluations = 80;  // most evaluations of one search, each of several prompts
  int finalists = 4;          // candidates of each search that are timed once more, in turn
  int64_t finest = 128;       // the last level's step is the prompt divided by this
  int decoded_tokens = 0;     // tokens decoded greedily behind each prompt
  uint64_t seed = 0;          // seed of the prompts' random ids
};

/// One finished search.
struct SearchReport {
  TableEntry best;
  Partition direct_solve;  // the partition that the costs give without any search
  int evaluations = 0;
};

/// KVR-S with measured TTFT, for each context, number of ranks and topology; one rank is timed too. A search starts
/// from the best of the direct solve and its corrections by the ranks' own compute times (CostsAsMeasured). The
/// finalists of a search are timed once more in turn with the direct solve, which they must surely beat
/// (SurelyFastest). `on_step` is told the context and the candidates timed so far.
std::vector<SearchReport> SearchPartitions(const Engine& engine, const DecoderSpec& spec, const SearchPlan& plan,
                                           const std::function<void(int64_t, int)>& on_step);

/// A table of the searches.
std::string ToText(const std::vector<SearchReport>& reports);

struct CheckPlan {
  std::vector<int64_t> contexts;
  std::vector<int64_t> ranks;
  std::vector<Topology> topologies;
  std::vector<std::string> partitions;
  int repeats = 12;
};

/// One way to prefill: what the simulator says, and what it took. Medians over the rounds.
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

/// Every strategy x partition x ranks, timed in turn, round after round, and predicted from the engine's cost profile
/// at the pace that the machine has just before and after each run (PaceMeter). A round is taken again for some
/// seconds until nobody disturbs it (LeastDisturbed).
std::vector<Checked> CheckPredictions(const Engine& engine, const DecoderSpec& spec, const CheckPlan& plan,
                                      const std::function<void(double)>& on_round);

std::string ToText(const std::vector<Checked>& checked);
std::string ToJson(const std::vector<Checked>& checked);

}  // namespace runahead::cli
