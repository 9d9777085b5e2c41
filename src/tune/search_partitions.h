// Searches for the partitions that prefill soonest, on the ranks themselves.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/decoder_spec.h"
#include "plan/partition_table.h"
#include "runahead/engine.h"

namespace runahead {

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

}  // namespace runahead
