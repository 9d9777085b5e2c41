// `runahead bench --suite weights`: what each format of weights takes, and what it costs in quality.
#pragma once

#include "bench_suite.h"

namespace runahead::cli {

/// Runs the suite on the one model of `request` and writes what was asked for. Throws as commands do.
int RunWeights(const SuiteFlags& flags, const SuiteRequest& request);

}  // namespace runahead::cli
