// Measures the cost profile of an engine: few short runs of parts of its model.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/engine_state.h"
#include "engine/profile_samples.h"
#include "plan/cost_profile.h"

namespace runahead {

/// Times, for 1, 2, 4, ... and all ranks at work at once: a layer for chunks of 1 to `longest` rows at the start and
/// at the end of such a prompt, what precedes and follows the layers, and the links. Only the first layers run,
/// except for single rows. What a machine does drifts, so that samples taken
/// around a prompt phase tell more about it than those of another minute.
class ProfileMeter {
 public:
  /// Makes room for prompts of `longest` tokens, or as many as the model takes. Throws what Session throws.
  ProfileMeter(std::shared_ptr<EngineState> engine, int64_t longest);
  ~ProfileMeter();
  ProfileMeter(const ProfileMeter&) = delete;
  ProfileMeter& operator=(const ProfileMeter&) = delete;

  /// Times everything once. Takes the engine for itself meanwhile.
  ProfileSamples Measure();
  /// The costs that fit samples of Measure.
  [[nodiscard]] CostProfile Fit(const ProfileSamples& samples) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// Copies between `members` while all of them copy at once, each to the next, with caches of their own.
class LinkProbe {
 public:
  LinkProbe(EngineState& engine, std::vector<int> members, int64_t longest);
  LinkSamples Measure();

 private:
  EngineState& engine_;
  std::vector<int> members_;
  int64_t many_;
  std::vector<KvCache> caches_;  // [members]
};

}  // namespace runahead
