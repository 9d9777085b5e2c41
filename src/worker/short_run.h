// Short runs of a model's first layers on one rank: what a cost profile is measured from.
#pragma once

#include <cstdint>
#include <vector>

#include "base/undisturbed.h"
#include "kv/kv_cache.h"
#include "model/decoder.h"
#include "worker/rank.h"

namespace runahead {

/// The chunk [begin, end) up to the exchange of `last_layer`. A number beyond the last layer: to the prompt's end.
struct ShortRun {
  int64_t begin = 0;
  int64_t end = 0;
  int last_layer = 0;
  bool dense = false;  // true: over all keys of the longest prompt, masked, as kTspDense does
};

/// What one rank saw of a short run: seconds before the first exchange, between two exchanges that have whole layers
/// between them, and after the last one.
struct Stretches {
  std::vector<double> before_s;
  std::vector<double> layer_s;
  std::vector<double> finish_s;
};

/// Adds what was seen of more runs.
inline void Append(const Stretches& from, Stretches& to) {
  to.before_s.insert(to.before_s.end(), from.before_s.begin(), from.before_s.end());
  to.layer_s.insert(to.layer_s.end(), from.layer_s.begin(), from.layer_s.end());
  to.finish_s.insert(to.finish_s.end(), from.finish_s.begin(), from.finish_s.end());
}

/// Makes `run` on the rank's thread; `cache` has room for the longest prompt. Adds to `seen`, by `clock` on a CPU;
/// null: adds nothing. The tokens at a position are the same in every run, so that a run over all leaves the rows
/// that later ones read.
void RunShort(Rank& rank, const Decoder& decoder, const PositionTables& tables, const KvCache& cache,
              const ShortRun& run, WorkClock clock, Stretches* seen);

}  // namespace runahead
