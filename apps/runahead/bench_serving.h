// `runahead bench --suite serving`: requests that arrive over time, by three policies.
#pragma once

#include "bench_suite.h"

namespace runahead::cli {

/// Runs the suite on the one model of `request` and writes what was asked for. Throws as commands do.
int RunServing(const SuiteFlags& flags, const SuiteRequest& request);

}  // namespace runahead::cli
