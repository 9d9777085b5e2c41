// A fabric that misbehaves on purpose: late, lost and failing transfers, for tests and experiments.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "link/link.h"

namespace runahead {

/// What goes wrong. Drawn from `seed`, the same in every run of the same sequence of posts.
struct Faults {
  uint64_t seed = 0;
  std::chrono::duration<double> max_delay{0};  // each arrival is late by a uniform draw up to this
  int lose_from = -1;                          // rank whose sends never arrive from layer `lose_layer` on; -1: none
  int lose_layer = 0;
};

/// Wraps `inner`: what arrives there is delayed, or withheld until the waiter's deadline.
std::unique_ptr<Fabric> MakeFaultFabric(std::unique_ptr<Fabric> inner, const Faults& faults);

}  // namespace runahead
