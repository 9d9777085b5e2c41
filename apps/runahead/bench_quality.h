// `runahead bench --suite weights` and `--suite wire`: what each format of weights, or of rows that travel, takes and
// what it costs in quality.
#pragma once

#include "bench_suite.h"

namespace runahead::cli {

/// Run a suite on the one model of `request` and write what was asked for. Throw as commands do.
int RunWeights(const SuiteFlags& flags, const SuiteRequest& request);
int RunWire(const SuiteFlags& flags, const SuiteRequest& request);

}  // namespace runahead::cli
