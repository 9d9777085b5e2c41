// `runahead bench --suite decode`: steps of many answers at once.
#pragma once

#include "bench_suite.h"

namespace runahead::cli {

/// Runs the suite on the one model of `request` and writes what was asked for. Throws as commands do.
int RunDecode(const SuiteFlags& flags, const SuiteRequest& request);

}  // namespace runahead::cli
