// Short runs of a model's first layers on some ranks at once: what a cost profile is measured from.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/engine_state.h"
#include "kv/kv_cache.h"

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

/// Some ranks at work at once, each with a cache for a prompt of `longest` tokens. Must not outlive the engine.
class Probe {
 public:
  Probe(HeldEngine& held, std::vector<int> members, int64_t longest);

  /// Lets every member make the run at the same time, again and again until all have made it `times` times, so that
  /// the fast ones go on working beside the others. Adds to `seen`, [members]; null: adds nothing. The tokens at a
  /// position are the same in every run, so that a run over all leaves the rows that later ones read.
  void Run(HeldEngine& held, const ShortRun& run, int times, std::vector<Stretches>* seen);

 private:
  void Once(EngineState& engine, size_t index, const ShortRun& run, Stretches* seen);

  std::vector<int> members_;
  std::vector<const PositionTables*> tables_;  // [members]
  std::vector<KvCache> caches_;                // [members]
};

}  // namespace runahead
