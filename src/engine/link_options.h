// How the ranks of an engine are joined, as a user says it.
#pragma once

#include <string>

#include "link/throttle.h"
#include "plan/cluster_costs.h"
#include "prefill/wire_costs.h"
#include "runahead/engine.h"

namespace runahead {

/// The links' part of EngineOptions.
struct LinkOptions {
  bool through_host = false;
  LinkRates rates;
  WireOptions wire;
  std::string limits;  // `rates` in words, for the key of what is measured with them; empty: none
};

/// Throws ConfigError that names the option and the value.
LinkOptions ParseLinkOptions(const EngineOptions& options, int ranks);

/// The links of `costs` under `rates`, as the throttle has them: none faster than its rate, one transfer at a time,
/// moved beside the computation.
ClusterCosts Limited(const ClusterCosts& costs, const LinkRates& rates);

}  // namespace runahead
